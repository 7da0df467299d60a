//! Reads the JSON objects of clients, the same in a frame and in a request. An error names the field.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::reason::{Reason, Rejection};

/// Reads a JSON object.
///
/// # Errors
/// [`Reason::BadJson`] if the text is not JSON. [`Reason::MalformedField`] if a field has a wrong type, is missing, is
/// unknown or is there twice; the sentence names it.
pub fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Rejection> {
    serde_json::from_str(json).map_err(|error| {
        if !error.is_data() {
            return Reason::BadJson.because(format!("invalid JSON: {error}"));
        }
        // serde names a field that is missing, unknown or there twice.
        let text = error.to_string();
        let is_named =
            ["missing field", "unknown field", "duplicate field"].iter().any(|begin| text.starts_with(begin));
        match field_at(json, error.line(), error.column()).filter(|_| !is_named) {
            Some(name) => Reason::MalformedField.because(format!("invalid field `{name}`: {text}")),
            None => Reason::MalformedField.because(format!("invalid field: {text}")),
        }
    })
}

/// The field whose value is at a place in the text of a JSON object. Lines are counted from 1.
fn field_at(json: &str, line: usize, column: usize) -> Option<String> {
    let place = json.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>() + column;
    let RawFields(fields) = serde_json::from_str(json).ok()?;
    // A value is a part of the text. An error is found at the end of its value, or within.
    let begin = |value: &RawValue| value.get().as_ptr() as usize - json.as_ptr() as usize;
    let before = fields.iter().map(|(name, value)| (begin(value), name)).filter(|(begin, _)| *begin <= place);
    before.max().map(|(_, name)| name.chars().take(64).collect())
}

/// The fields of a JSON object with their values as text. So no deeply nested value is parsed.
pub(super) struct RawFields<'a>(pub BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for RawFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = RawFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    match fields.entry(name) {
                        Entry::Vacant(vacant) => drop(vacant.insert(value)),
                        Entry::Occupied(known) => {
                            return Err(A::Error::custom(format_args!("duplicate field `{}`", known.key())));
                        }
                    }
                }
                Ok(RawFields(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only errors matter here")]
    struct Fields {
        name: String,
        count: Option<u32>,
        #[serde(default, deserialize_with = "crate::protocol::whole_number")]
        whole: Option<u32>,
        list: Option<Vec<String>>,
    }

    #[test]
    fn an_error_names_its_field() {
        for (json, field) in [
            (r#"{"name":5}"#, "`name`: invalid type: integer `5`"),
            (r#"{"name":null}"#, "`name`: invalid type: null"),
            ("{\n\"count\" : 5,\n\n  \"name\": [1, 2]}", "`name`: invalid type: sequence"),
            (r#"{"name":"a","count":"5"}"#, "`count`: invalid type: string"),
            (r#"{"name":"a","count":-1,"list":[]}"#, "`count`: invalid value"),
            (r#"{"whole":{"a":"}"},"name":"a"}"#, "`whole`: invalid type: map"),
            (r#"{"whole":1.5,"name":"a"}"#, "`whole`: expected a whole number"),
            (r#"{"list":["a",{"name":7}],"name":"a"}"#, "`list`: invalid type: map"),
            (r#"{"name":"a","name":"b"}"#, ": duplicate field `name`"),
            (r#"{"count":5}"#, ": missing field `name`"),
            (r#"{"name":"a","colour":7}"#, ": unknown field `colour`"),
        ] {
            let rejection = read::<Fields>(json).unwrap_err();
            assert_eq!(rejection.reason, Reason::MalformedField, "{json}");
            let expected =
                if field.starts_with('`') { format!("invalid field {field}") } else { format!("invalid field{field}") };
            assert!(rejection.sentence.starts_with(&expected), "{json}: {}", rejection.sentence);
        }
        for json in ["", "{", r#"{"name":}"#, r#"{"name":"a"}x"#] {
            assert_eq!(read::<Fields>(json).unwrap_err().reason, Reason::BadJson, "{json}");
        }
        assert!(read::<RawFields<'_>>(r#"{"a":1,"b":2,"a":3}"#).is_err());
    }
}
