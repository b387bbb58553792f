//! Canonical JSON: the bytes that signatures are made over.

use serde_json::Value;

use super::envelope::{MAX_DEPTH, MetadataError};

/// Canonical JSON as The Update Framework means it (<http://gibson042.github.io/canonicaljson-spec/> differs; this is
/// OLPC's: keys sorted by code point, no white space, only `"` and `\` escaped, integers only).
pub fn canonical(value: &Value) -> Result<Vec<u8>, MetadataError> {
    let mut out = Vec::new();
    write_canonical(value, &mut out, 0)?;
    Ok(out)
}

fn write_canonical(value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), MetadataError> {
    if depth > MAX_DEPTH {
        return Err(MetadataError::TooDeep);
    }
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(true) => out.extend(b"true"),
        Value::Bool(false) => out.extend(b"false"),
        Value::Number(number) if number.is_i64() || number.is_u64() => out.extend(number.to_string().as_bytes()),
        Value::Number(_) => return Err(MetadataError::NotAnInteger),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_canonical(item, out, depth + 1)?;
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            // Sorted here and not by the map, whose order is a feature flag that any crate may turn.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (index, (name, item)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_canonical(item, out, depth + 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}
