//! References inside a text: `${env:NAME}`, `${file:/path}`; `$${` is a literal `${`.
//!
//! Inside the user and password of a URL what a reference stands for is percent-encoded, so that any password may stand
//! there. A message never shows what a reference stands for; it quotes the text as it was written.

use std::path::Path;

use godwit_model::codes;

use crate::environment::Environment;
use crate::problem::Problem;
use crate::yaml::{Data, Node};

/// Resolves every text below `node`; what cannot be resolved is reported and stays unresolved.
pub fn resolve(node: &mut Node, folder: &Path, environment: &dyn Environment, problems: &mut Vec<Problem>) {
    let spot = node.spot;
    match &mut node.data {
        Data::Text(text) => match expand(&text.written, folder, environment) {
            Ok(resolved) => text.resolved = Some(resolved),
            Err((what, remedy)) => problems.push(Problem::new(&codes::TASK_REFERENCE, what, spot).remedy(remedy)),
        },
        Data::List(items) => items.iter_mut().for_each(|item| resolve(item, folder, environment, problems)),
        Data::Map(entries) => entries.iter_mut().for_each(|(_, value)| resolve(value, folder, environment, problems)),
        _ => {}
    }
}

enum Piece<'a> {
    Literal(&'a str),
    /// The `$${` that stands for `${`.
    Escape,
    Reference(&'a str),
}

type Refusal = (String, String);

/// The text with its references replaced; the error is what happened and what to do.
fn expand(text: &str, folder: &Path, environment: &dyn Environment) -> Result<String, Refusal> {
    let pieces = split(text)?;
    let credentials_end = credentials_end(&pieces);
    let mut resolved = String::with_capacity(text.len());
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Literal(literal) => resolved.push_str(literal),
            Piece::Escape => resolved.push_str("${"),
            Piece::Reference(reference) => {
                let value = look_up(reference, folder, environment)?;
                let in_credentials = credentials_end.is_some_and(|end| index < end);
                resolved.push_str(&if in_credentials { crate::url::encode(&value) } else { value });
            }
        }
    }
    Ok(resolved)
}

fn split(text: &str) -> Result<Vec<Piece<'_>>, Refusal> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            pieces.extend([Piece::Literal(before), Piece::Escape]);
            rest = &rest[at + 2..];
            continue;
        }
        pieces.push(Piece::Literal(&rest[..at]));
        let Some(end) = rest[at..].find('}') else {
            return Err((
                "a reference begins with `${` and never ends".to_owned(),
                "close it with `}`, or write `$${` for a literal `${`".to_owned(),
            ));
        };
        pieces.push(Piece::Reference(&rest[at + 2..at + end]));
        rest = &rest[at + end + 1..];
    }
    pieces.push(Piece::Literal(rest));
    Ok(pieces)
}

/// The index of the piece that ends a URL's user and password, if the text begins as a URL.
fn credentials_end(pieces: &[Piece<'_>]) -> Option<usize> {
    let Some(Piece::Literal(first)) = pieces.first() else { return None };
    let authority = &first[first.find("://")? + 3..];
    if authority.contains(['/', '?', '@']) {
        return None;
    }
    pieces.iter().position(|piece| matches!(piece, Piece::Literal(literal) if literal.contains('@')))
}

fn look_up(reference: &str, folder: &Path, environment: &dyn Environment) -> Result<String, Refusal> {
    match reference.split_once(':') {
        Some(("env", name)) => variable(name, environment),
        Some(("file", path)) => file(path, folder, environment),
        _ => Err((
            "a reference is neither `${env:NAME}` nor `${file:/path}`".to_owned(),
            "write one of these, or `$${` for a literal `${`".to_owned(),
        )),
    }
}

fn variable(name: &str, environment: &dyn Environment) -> Result<String, Refusal> {
    let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty();
    if !good {
        return Err(("`${env:...}` does not name a variable".to_owned(), "use letters, digits and `_`".to_owned()));
    }
    environment.variable(name).ok_or_else(|| {
        (format!("the environment variable {name} is not set"), format!("set {name} where godwit runs, or remove the reference"))
    })
}

fn file(path: &str, folder: &Path, environment: &dyn Environment) -> Result<String, Refusal> {
    if path.is_empty() {
        return Err(("`${file:}` does not name a file".to_owned(), "write `${file:/path}`".to_owned()));
    }
    let path = folder.join(path);
    let text = environment.read(&path).map_err(|error| {
        (
            format!("the file {} cannot be read: {error}", path.display()),
            "check that it is there and that the user godwit runs as may read it".to_owned(),
        )
    })?;
    // Editors and `echo` end a file with a newline that is no part of a password.
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Fake;

    fn expanded(text: &str) -> Result<String, String> {
        let fake = Fake::default().with_variable("PW", "p@s/s:%").with_file("/run/pw", "line\n").with_file("/base/rel", "r");
        expand(text, Path::new("/base"), &fake).map_err(|refusal| refusal.0)
    }

    #[test]
    fn references_are_replaced_and_escapes_kept() {
        assert_eq!(expanded("a${env:PW}b").unwrap(), "ap@s/s:%b");
        assert_eq!(expanded("${file:/run/pw}${file:rel}").unwrap(), "liner");
        assert_eq!(expanded("$${env:PW} $x {y} $").unwrap(), "${env:PW} $x {y} $");
        assert_eq!(expanded("").unwrap(), "");
    }

    #[test]
    fn inside_credentials_of_a_url_they_are_encoded() {
        assert_eq!(expanded("postgres://u:${env:PW}@h/${env:PW}").unwrap(), "postgres://u:p%40s%2Fs%3A%25@h/p@s/s:%");
        assert_eq!(expanded("sqlite:///a/${file:rel}@b").unwrap(), "sqlite:///a/r@b");
    }

    #[test]
    fn what_cannot_be_resolved_is_said_without_the_value() {
        for text in ["${env:NONE}", "${env:}", "${env:A B}", "${file:/none}", "${file:}", "${PW}", "${env:PW", "${}"] {
            assert!(expanded(text).is_err(), "{text}");
        }
    }
}
