//! The pages of `docs/errors/`, carried in the binary so that `godwit explain GW2014` needs no network.

/// One line per page; a test holds it against the table of codes and against the folder.
macro_rules! pages {
    ($($number:literal)*) => {
        const PAGES: &[(u16, &str)] = &[$(($number, include_str!(concat!("../../../docs/errors/GW", $number, ".md")))),*];
    };
}

pages! {
    1001 1002 1003 1004 1005 1006 1007 1008 1009 1010 1011 1012
    2001 2002 2003 2004 2005 2006 2007 2008 2009 2010 2011 2012 2013 2014
    3001 3002 3003 3004 3005 3006 3007 3008 3009 3010 3011
    4001 4002 4003 4004 4005 4006 4007 4008 4009 4010 4011
    5001 5002 5003 5004 5005 5006
    6001 6002 6003 6004 6005 6006 6007 6008 6009 6010
    9001
}

/// The page of a code such as `GW2014` (also `gw2014` or `2014`); None if there is no such code.
pub fn explain_code(code: &str) -> Option<&'static str> {
    let code = code.trim();
    let digits = code.strip_prefix("GW").or_else(|| code.strip_prefix("gw")).unwrap_or(code);
    let number = digits.parse::<u16>().ok().filter(|_| digits.len() == 4)?;
    PAGES.iter().find(|(known, _)| *known == number).map(|(_, page)| *page)
}
