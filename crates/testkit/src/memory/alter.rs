//! Gives a target table other columns.

use godwit_model::{Alteration, Column, Result, Row, Value};

use super::spec::TableSpec;
use super::state::State;

pub(super) fn perform(state: &mut State, alteration: &Alteration<'_>) -> Result<()> {
    let after = alteration.after;
    let heap = state.heap(&after.target)?;
    let old = &heap.spec;
    let mut spec = (**old).clone();
    for gone in alteration.gone() {
        if spec.index_of(&gone.target).is_some() {
            spec = spec.without(&gone.target);
        }
    }
    // done before, where the call is repeated
    let open = |(old, new): &(&str, &str)| spec.index_of(old).is_some() && spec.index_of(new).is_none();
    let moved: Vec<(&str, &str)> = alteration.moved().filter(open).collect();
    for (old, new) in &moved {
        spec = spec.renamed(old, new);
    }
    let mut fills: Vec<(String, Value)> = Vec::new();
    for column in &after.columns {
        let known = alteration.known(column);
        match spec.index_of(&column.target) {
            None => {
                let fill = alteration.fills.iter().find(|(name, _)| *name == column.source);
                fills.push((column.target.clone(), fill.map_or(Value::Null, |(_, value)| value.clone())));
                spec = spec.column(&column.target, &column.type_name);
            }
            Some(index) if known.is_some_and(|known| known.type_name != column.type_name) => {
                retype(&mut spec.columns[index], &column.type_name)
            }
            Some(_) => {}
        }
    }
    let old_name =
        |column: &Column| moved.iter().find(|(_, new)| *new == column.name).map_or(column.name.clone(), |(old, _)| (*old).to_owned());
    let row = |row: &Row| spec.columns.iter().map(|column| value(old, row, column, &old_name(column), &fills)).collect();
    let next = heap.reshaped(spec.clone(), row)?;
    state.tables.insert(after.target.clone(), next.into());
    Ok(())
}

/// Values of another type are emptied.
fn retype(column: &mut Column, type_name: &str) {
    type_name.clone_into(&mut column.type_name);
    column.nullable = true;
}

fn value(old: &TableSpec, row: &Row, column: &Column, old_name: &str, fills: &[(String, Value)]) -> Value {
    match old.index_of(old_name) {
        Some(index) if old.columns[index].type_name == column.type_name => row[index].clone(),
        Some(_) => Value::Null,
        None => fills.iter().find(|(name, _)| *name == column.name).map_or(Value::Null, |(_, value)| value.clone()),
    }
}
