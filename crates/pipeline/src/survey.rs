//! Looking before leaping: what a task would do, and what stands in its way. Changes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use godwit_model::{
    Create, Description, Error, Finding, Result, Severity, Source, SourceNeeds, Table, TableMapping, TableName, Target, TargetNeeds, Task,
    codes,
};

use crate::setup;

/// Source and target of a task that does not run.
pub struct Survey {
    pub task: Arc<Task>,
    pub source: Arc<dyn Source>,
    pub target: Arc<dyn Target>,
}

/// What `plan` shows.
pub struct PlanReport {
    pub description: Description,
    pub mappings: Vec<TableMapping>,
}

#[derive(Debug, Default)]
pub struct CheckReport {
    /// Blockers first.
    pub findings: Vec<Finding>,
    /// What the source was found to hold, for a task that begins now.
    pub description: Description,
}

impl CheckReport {
    pub fn is_clear(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Blocker)
    }
}

impl Survey {
    pub async fn plan(&self) -> Result<PlanReport> {
        let description = setup::describe(&self.task, &*self.source, &*self.target).await?;
        let mappings = TableMapping::resolve_all(&self.task.map, &description.tables)?;
        Ok(PlanReport { description, mappings })
    }

    /// Everything that is wrong with the stores is a finding; what cannot be asked at all is an error.
    pub async fn check(&self) -> Result<CheckReport> {
        let (at_source, at_target) = (self.source.capabilities(), self.target.capabilities());
        self.refuse_same_store()?;
        setup::refuse_unbuilt(&self.task, &at_source, &at_target)?;
        let (PlanReport { description, mappings }, refused) = self.plan_or_tables().await?;
        let tables: Vec<Arc<Table>> = description.tables.iter().cloned().map(Arc::new).collect();
        let mappings: Vec<Arc<TableMapping>> = mappings.into_iter().map(Arc::new).collect();
        let needs = SourceNeeds { task: &self.task, tables: &tables, changes: self.task.phases.changes };
        let mut findings = self.source.check(&needs).await?;
        findings.extend(self.target.check(&TargetNeeds { task: &self.task, description: &description, mappings: &mappings }).await?);
        // only now have both been asked who they are: before, an address stood for each
        self.refuse_same_store()?;
        let refused = match refused {
            Some(refused) => Some(refused),
            None => match self.existing(&description, &mappings).await {
                Ok(found) => {
                    findings.extend(found);
                    None
                }
                Err(refused) if refused.is(&codes::RIGHTS_MISSING) => Some(refused),
                Err(error) => return Err(error),
            },
        };
        match &refused {
            None => {}
            // a right that a check names is not said twice
            Some(refused) if findings.iter().any(is_right) => {
                tracing::info!(error = %refused, "not everything could be asked");
            }
            Some(refused) => findings.push(as_finding(refused)),
        }
        findings.extend(keyless(&tables));
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(CheckReport { findings, description })
    }

    /// To read a schema takes more rights than to look at the catalogs. Where they lack, the tables alone are told, with
    /// the refusal, so that every check can still be made.
    async fn plan_or_tables(&self) -> Result<(PlanReport, Option<Error>)> {
        match self.plan().await {
            Ok(report) => Ok((report, None)),
            Err(refused) if refused.is(&codes::RIGHTS_MISSING) || refused.is(&codes::SERVER_REFUSED) => {
                let mut task = (*self.task).clone();
                task.schema.create = Create::None;
                let bare = Survey { task: Arc::new(task), source: self.source.clone(), target: self.target.clone() };
                Ok((bare.plan().await?, Some(refused)))
            }
            Err(error) => Err(error),
        }
    }

    fn refuse_same_store(&self) -> Result<()> {
        let (at_source, at_target) = (self.source.capabilities(), self.target.capabilities());
        if at_source.dialect != at_target.dialect || at_source.identity != at_target.identity {
            return Ok(());
        }
        Err(Error::new(&codes::SAME_STORE, "source and target are the same store")
            .at(self.task.target.display())
            .remedy("name another database or file as the target")
            .effect("nothing was changed"))
    }

    async fn existing(&self, description: &Description, mappings: &[Arc<TableMapping>]) -> Result<Vec<Finding>> {
        // a task that has begun has decided this already
        if !self.target.ledger(&self.task.name).await?.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<TableName> = mappings.iter().map(|mapping| mapping.target.clone()).collect();
        let present = self.target.present(&names).await?;
        let created: HashSet<&TableName> = description.items.iter().filter_map(|item| item.table.as_ref()).collect();
        let of_file = matches!(self.task.schema.create, Create::File(_));
        let whole_file = of_file && description.items.iter().any(|item| item.table.is_none());
        let mut errors: Vec<Error> = setup::judge_existing(self.task.existing, &present).err().into_iter().collect();
        let tables: HashMap<&TableName, &Table> = present.iter().map(|present| (&present.table.name, &present.table)).collect();
        for mapping in mappings {
            let there = tables.get(&mapping.target).copied();
            let comes = there.is_none() && (created.contains(&mapping.target) || whole_file);
            let replaced = self.task.existing == godwit_model::Existing::Replace;
            if !comes && !replaced {
                errors.extend(setup::fits(mapping, there, setup::Key::IsThere).err());
            }
        }
        Ok(errors.into_iter().map(|error| as_finding(&error)).collect())
    }
}

fn is_right(finding: &Finding) -> bool {
    finding.severity == Severity::Blocker && finding.code == Some(&codes::RIGHTS_MISSING)
}

fn as_finding(error: &Error) -> Finding {
    let what = match error.place() {
        Some(place) => format!("{place}: {}", error.what()),
        None => error.what().to_owned(),
    };
    Finding::blocker("target_tables", error.code(), what, error.remedy_text().unwrap_or_default())
}

fn keyless(tables: &[Arc<Table>]) -> Vec<Finding> {
    let without: Vec<String> = tables.iter().filter(|table| table.key.is_none()).map(|table| table.name.to_string()).collect();
    if without.is_empty() {
        return Vec::new();
    }
    let what = format!("without a key: {}", without.join(", "));
    vec![Finding::warning(
        "keys",
        what,
        "such tables are copied whole, from the start again after a crash, and their changes go row by row; a key helps",
    )]
}
