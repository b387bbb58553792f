//! Query strings, as the Docker Engine API uses them.

use std::collections::HashMap;

use crate::respond::Failure;

/// Most parameters of one request.
const MAX_PARAMETERS: usize = 64;
/// Most values of all filters of one request.
const MAX_FILTER_VALUES: usize = 256;

/// The parameters of a request, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows the `?`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut parameters = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if parameters.len() == MAX_PARAMETERS {
                return Err(Failure::bad_request(format!("query has more than {MAX_PARAMETERS} parameters")));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.push((decode(name, true)?, decode(value, true)?));
        }
        Ok(Self(parameters))
    }

    /// The first value under a name, empty or not.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values under a name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value under a name, unless it is empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// A flag as Docker reads it: absent, empty, `0`, `no`, `false` and `none` are false, all else is true.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// A flag that has another default.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(value) => !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none"),
        }
    }

    /// A number, if there is one.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.text(name)
            .map(|value| {
                value.parse().map_err(|_| Failure::bad_request(format!("parameter {name}={value:?} is not a number")))
            })
            .transpose()
    }

    /// The `filters` parameter: `{"name":["value"]}`, or `{"name":{"value":true}}` as old clients write it.
    pub fn filters(&self) -> Result<HashMap<String, Vec<String>>, Failure> {
        self.text("filters").map_or_else(|| Ok(HashMap::new()), parse_filters)
    }
}

fn parse_filters(text: &str) -> Result<HashMap<String, Vec<String>>, Failure> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Values {
        List(Vec<String>),
        Set(HashMap<String, bool>),
    }
    let raw: HashMap<String, Values> = serde_json::from_str(text)
        .map_err(|error| Failure::bad_request(format!("parameter filters can't be read as JSON: {error}")))?;
    let mut filters = HashMap::new();
    let mut count = 0;
    for (name, values) in raw {
        let values: Vec<String> = match values {
            Values::List(list) => list,
            Values::Set(set) => set.into_iter().filter(|(_, wanted)| *wanted).map(|(value, _)| value).collect(),
        };
        count += values.len();
        if count > MAX_FILTER_VALUES {
            return Err(Failure::bad_request(format!("filters have more than {MAX_FILTER_VALUES} values")));
        }
        filters.insert(name, values);
    }
    Ok(filters)
}

/// Undoes percent-encoding (RFC 3986, section 2.1); in queries `+` stands for a space.
pub fn decode(text: &str, plus_is_space: bool) -> Result<String, Failure> {
    let refuse = || Failure::bad_request(format!("{:?} is not valid in an address", text.get(..80).unwrap_or(text)));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' if plus_is_space => bytes.push(b' '),
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(refuse);
                let (high, low) = (digit()?, digit()?);
                bytes.push(u8::try_from(high * 16 + low).map_err(|_| refuse())?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("name=a%2Fb&all=1&t=10&x=a+b&empty=&bare").unwrap();
        assert_eq!(query.text("name"), Some("a/b"));
        assert_eq!(query.text("x"), Some("a b"));
        assert_eq!(query.text("empty"), None);
        assert_eq!(query.get("bare"), Some(""));
        assert!(query.flag("all") && !query.flag("empty") && !query.flag("absent"));
        assert_eq!(query.number::<i64>("t").unwrap(), Some(10));
        assert!(query.number::<i64>("x").is_err());
    }

    #[test]
    fn broken_encodings_are_refused() {
        for text in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
        assert!(Query::parse(&"a&".repeat(65)).is_err());
    }

    #[test]
    fn both_shapes_of_filters_are_read() {
        for text in [r#"{"status":["running"]}"#, r#"{"status":{"running":true,"dead":false}}"#] {
            assert_eq!(parse_filters(text).unwrap()["status"], ["running"]);
        }
        assert!(parse_filters("[1]").is_err());
    }
}
