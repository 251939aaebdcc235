//! URLs of endpoints: `scheme://user:password@host:port/database?option=value`, or `scheme:path` for a file.
//!
//! Not a general URL parser: hosts are not folded or looked at, and an error never quotes the URL, since it may hold a
//! password. Everything but the scheme is percent-decoded.

/// The parts that are there, decoded.
#[derive(Clone, PartialEq, Default)]
pub struct Url {
    pub scheme: String,
    pub user: Option<String>,
    pub password: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// After the host and its slash; for files the path.
    pub path: String,
    pub options: Vec<(String, String)>,
}

/// The error says what is wrong, without the URL. `is_file` tells which schemes have no host.
pub fn parse(text: &str, is_file: impl Fn(&str) -> bool) -> Result<Url, String> {
    let (scheme, rest) = text.split_once(':').ok_or("a URL begins with an engine and a colon, such as `postgres://`")?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err("a URL begins with an engine and a colon, such as `postgres://`".to_owned());
    }
    if rest.contains('#') {
        return Err("a URL of a store has no `#`; write it as %23".to_owned());
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url { options: options(query)?, ..Url::default() };
    if is_file(&scheme) {
        url.path = file_path(rest)?;
    } else {
        server(rest, &mut url)?;
    }
    url.scheme = scheme;
    Ok(url)
}

fn file_path(rest: &str) -> Result<String, String> {
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(path) if path.starts_with('/') => path,
        Some(_) => {
            return Err(
                "after `//` the path of a file begins with a slash (three in all); a relative path has none: `sqlite:file.db`".to_owned()
            );
        }
    };
    if path.is_empty() || path.ends_with('/') {
        return Err("the URL names no file".to_owned());
    }
    decode(path)
}

fn server(rest: &str, url: &mut Url) -> Result<(), String> {
    let rest = rest.strip_prefix("//").ok_or("after the engine and the colon come two slashes")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let place = match authority.rsplit_once('@') {
        Some((login, place)) => {
            let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
            url.user = given(decode(user)?);
            url.password = password.map(decode).transpose()?;
            place
        }
        None => authority,
    };
    let (host, port) = host_and_port(place)?;
    url.host = given(decode(host)?);
    url.port = port.map(|port| self::port(&port)).transpose()?;
    url.path = decode(path)?;
    if path.contains('/') {
        return Err("the database's name holds a slash; write it as %2F".to_owned());
    }
    Ok(())
}

fn host_and_port(place: &str) -> Result<(&str, Option<String>), String> {
    if place.contains(',') {
        return Err("more than one host in a URL is not in this version; name the primary".to_owned());
    }
    let (host, rest) = match place.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or("the address begins with `[` and has no `]`")?,
        None => place.find(':').map_or((place, ""), |at| place.split_at(at)),
    };
    match rest.strip_prefix(':') {
        Some("") => Ok((host, None)),
        Some(port) => Ok((host, Some(decode(port)?))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err("after the address comes a colon and the port".to_owned()),
    }
}

pub fn port(text: &str) -> Result<u16, String> {
    let number = text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    number.ok_or_else(|| {
        "the port is a whole number from 1 to 65535 (a `:`, `/` or `@` in a password is written as %3A, %2F, %40)".to_owned()
    })
}

fn options(query: &str) -> Result<Vec<(String, String)>, String> {
    let mut options: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("after the `?` come options as name=value, joined by `&`")?;
        let name = decode(name)?;
        if options.iter().any(|(other, _)| *other == name) {
            return Err("an option stands twice in the URL".to_owned());
        }
        options.push((name, decode(value)?));
    }
    Ok(options)
}

pub fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn decode(text: &str) -> Result<String, String> {
    let wrong = || "after a `%` come two hexadecimal digits; a `%` itself is written as %25".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit)).ok_or_else(wrong)?;
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = &tail[2..];
    }
    if bytes.contains(&0) {
        return Err("a URL cannot hold a zero byte (%00)".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "the URL is not UTF-8 once it is decoded".to_owned())
}

/// So that any text can stand in any part of a URL.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Url, String> {
        parse(text, |scheme| scheme == "sqlite")
    }

    #[test]
    fn all_parts_of_a_server_are_read() {
        let url = parsed("Postgres://us%40er:p%3Aw@[::1]:5433/sh%2Fop?sslmode=require&a=b%26").ok().unwrap();
        assert_eq!((url.scheme.as_str(), url.user.as_deref(), url.password.as_deref()), ("postgres", Some("us@er"), Some("p:w")));
        assert_eq!((url.host.as_deref(), url.port, url.path.as_str()), (Some("::1"), Some(5433), "sh/op"));
        assert_eq!(url.options, [("sslmode".into(), "require".into()), ("a".into(), "b&".into())]);
        let url = parsed("postgres://%2Fvar%2Frun/db").ok().unwrap();
        assert_eq!(url.host.as_deref(), Some("/var/run"));
        assert!(parsed("postgres://").ok().unwrap().host.is_none());
    }

    #[test]
    fn files_are_absolute_or_relative() {
        assert_eq!(parsed("sqlite:///a/b.db").ok().unwrap().path, "/a/b.db");
        assert_eq!(parsed("sqlite:/a/b.db").ok().unwrap().path, "/a/b.db");
        assert_eq!(parsed("sqlite:b%20c.db").ok().unwrap().path, "b c.db");
        assert!(parsed("sqlite://b.db").err().unwrap().contains("three in all"));
        assert!(parsed("sqlite:").is_err());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_url() {
        let cases = [
            "hunter2",
            "://hunter2",
            "postgres:hunter2",
            "postgres://u:hun/ter2@h/d",
            "postgres://u:%hunter2@h/d",
            "postgres://h1,hunter2/d",
            "postgres://h:hunter2/d",
            "postgres://h/d?hunter2",
            "postgres://h/d#hunter2",
            "postgres://[hunter2/d",
        ];
        for text in cases {
            assert!(!parsed(text).err().expect(text).contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn encoding_is_undone_by_decoding() {
        let text = "p@s:/?#[]%&=+ ü";
        assert_eq!(decode(&encode(text)).unwrap(), text);
    }
}
