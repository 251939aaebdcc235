//! `godwit explain`: the help of a field of the task file, or of an error code.

use godwit_model::{Error, Result, codes};
use serde_json::json;

use crate::answer::Answer;
use crate::cli::Explain;

pub fn explain(args: &Explain) -> Result<Answer> {
    if args.json_schema {
        let schema = godwit_task::json_schema();
        let json = serde_json::from_str(&schema).map_err(|cause| Error::internal("the schema is no JSON").caused_by(cause))?;
        // the schema itself is the answer: it carries its own version
        return Ok(Answer { json, text: schema, ..Answer::default() });
    }
    match args.topic.as_deref() {
        None => Ok(everything()),
        Some(topic) if is_code(topic) => code(topic),
        Some(topic) => field(topic),
    }
}

fn everything() -> Answer {
    let fields = godwit_task::all_fields();
    let text = format!(
        "fields of a task file (godwit explain FIELD):\n  {}\nerror codes: godwit explain GW2001\nfor editors: godwit explain --json-schema\n",
        fields.join("\n  ")
    );
    Answer::new(false, json!({"result": "explain", "fields": fields}), text)
}

fn is_code(topic: &str) -> bool {
    let digits = topic.strip_prefix("GW").or_else(|| topic.strip_prefix("gw")).unwrap_or(topic);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn code(topic: &str) -> Result<Answer> {
    let digits = topic.trim_start_matches(['G', 'W', 'g', 'w']);
    let known =
        digits.parse().ok().and_then(codes::find).ok_or_else(|| unknown(topic, "codes stand in every error: GW and four digits"))?;
    let text = match godwit_task::explain_code(&known.to_string()) {
        Some(page) => page.to_owned(),
        None => format!("{known}: {}\n\nA command that ends with it has exit status {}.\n", known.title, known.kind.exit_status()),
    };
    let json = json!({
        "result": "explain", "code": known.to_string(), "title": known.title, "exit_status": known.kind.exit_status(), "text": text,
    });
    Ok(Answer::new(false, json, text))
}

fn field(topic: &str) -> Result<Answer> {
    let Some(text) = godwit_task::explain_field(topic) else {
        let remedy = match godwit_task::nearest_field(topic) {
            Some(near) => format!("did you mean `{near}`? `godwit explain` lists all"),
            None => "`godwit explain` lists all".to_owned(),
        };
        return Err(unknown(topic, remedy));
    };
    Ok(Answer::new(false, json!({"result": "explain", "field": topic, "text": text}), text))
}

fn unknown(topic: &str, remedy: impl Into<String>) -> Error {
    Error::new(&codes::USAGE, format!("there is no field or code `{topic}`")).remedy(remedy)
}
