//! What a task file may ask for one day, so that asking today gets a true sentence instead of "unknown key".

/// A path in the form, `*` for any step (an index, a column), and what is said. A last step that is a word of a choice
/// (`mode.track`) is that word.
const LATER: &[(&str, &str)] = &[
    ("mode.integrate", "scheduled transfers (`mode: integrate`) are not in this version, which knows migrate and synchronize"),
    ("mode.track", "subscriptions (`mode: track`) are not in this version, which knows migrate and synchronize"),
    ("select.rows", "filters on rows (`select.rows`) are not in this version: whole tables are moved"),
    ("map.*.columns.*.value", "computed columns (`value`) are not in this version: columns are renamed or left out"),
    ("map.*.columns.*.type", "a type of one's own for a column (`type`) is not in this version: types follow from the source"),
    ("values.allow", "lossy conversions (`values.allow`) are not in this version: a value arrives as it was, or the task stops"),
    ("values.on_failure.park", "parking rows (`on_failure: park`) is not in this version: a value that is refused stops the task"),
    ("limits.rate", "a limit on the rate (`limits.rate`) is not in this version: lower `limits.connections` to go slower"),
];

/// The sentence for that path, if it is one that is to come.
pub fn sentence(path: &[&str]) -> Option<&'static str> {
    LATER.iter().find(|(pattern, _)| matches(pattern, path)).map(|(_, sentence)| *sentence)
}

fn matches(pattern: &str, path: &[&str]) -> bool {
    pattern.split('.').count() == path.len() && pattern.split('.').zip(path).all(|(step, actual)| step == "*" || step == *actual)
}
