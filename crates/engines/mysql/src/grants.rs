//! The statements that give an account every right a task needs, and no more.
//!
//! An account sees only what it has rights on: those for a source are told from the task's words alone.

use godwit_model::{EndpointConfig, GrantStatements, Result, TableName, Task};

use crate::connect::{Endpoint, Flavor, Purpose};
use crate::rights::{self, Need, Rights};

/// For the source.
pub async fn source_grants(task: &Task) -> Result<GrantStatements> {
    let endpoint = Endpoint::new(&task.source)?;
    let mut conn = endpoint.connect(Purpose::Read).await?;
    let flavor = endpoint.ask(&mut conn).await?.flavor;
    let account = Rights::read(&mut conn).await?.account;
    let mut all = statements(&of_source(task, flavor), &account);
    all.optional.push(format!("GRANT PROCESS ON *.* TO {account}; -- a table that is emptied at once is then noticed by the catalog too"));
    if flavor == Flavor::MariaDb {
        all.optional.push(format!("GRANT BINLOG ADMIN ON *.* TO {account}; -- users' ALTER TABLE then waits for no copy"));
    }
    Ok(all)
}

/// For the target; `tables` are the names there.
pub async fn target_grants(task: &Task, tables: &[TableName]) -> Result<GrantStatements> {
    let mut conn = Endpoint::new(&task.target)?.connect(Purpose::Read).await?;
    Ok(statements(&of_target(task, tables), &Rights::read(&mut conn).await?.account))
}

/// Without asking the server: for an account that cannot log in yet, what is known from the task.
pub fn grants_unasked(task: &Task) -> (GrantStatements, GrantStatements) {
    // a name of the right that both families of servers take
    let (source, target) = (of_source(task, Flavor::MySql), of_target(task, &[]));
    let with_account = |endpoint: &EndpointConfig, needs: &[Need]| {
        let account = rights::quoted(&format!("{}@%", endpoint.user.as_deref().unwrap_or("godwit")));
        let mut all = statements(needs, &account);
        all.required.insert(0, format!("CREATE USER {account}; -- unless it is there; then ask again"));
        all
    };
    (with_account(&task.source, &source), with_account(&task.target, &target))
}

fn of_source(task: &Task, flavor: Flavor) -> Vec<Need> {
    let mut needs = rights::reading(rights::levels_of(&task.select, &task.source.database));
    needs.extend(rights::following(flavor, task));
    needs
}

fn of_target(task: &Task, tables: &[TableName]) -> Vec<Need> {
    rights::writing(task, tables.iter().map(|table| table.schema.as_str()))
}

fn statements(needs: &[Need], account: &str) -> GrantStatements {
    GrantStatements { required: needs.iter().map(|need| need.statement(account) + ";").collect(), optional: Vec::new() }
}
