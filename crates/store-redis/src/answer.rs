//! What answers of the server hold.

use redis::Value;

/// What one HSCAN has found.
pub(crate) struct Found {
    /// Where to go on; 0 at the end.
    pub cursor: u64,
    /// Ids and values, each id before its value.
    pub fields: Vec<Value>,
}

/// Reads the answer of an HSCAN; `None` if it is none.
pub(crate) fn found(answer: Value) -> Option<Found> {
    let Value::Array(mut parts) = answer else {
        return None;
    };
    let (Some(Value::Array(fields)), Some(cursor), 0) = (parts.pop(), parts.pop(), parts.len()) else {
        return None;
    };
    let cursor = std::str::from_utf8(bytes(&cursor)?).ok()?.parse().ok()?;
    (fields.len() % 2 == 0).then_some(Found { cursor, fields })
}

/// The bytes of a string.
pub(crate) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// A number that is not negative.
pub(crate) fn number(answer: &Value) -> Option<u64> {
    match answer {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// One field of what INFO answers.
pub(crate) fn field<'a>(answer: &'a Value, name: &str) -> Option<&'a str> {
    let text = match answer {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::VerbatimString { text, .. } => text,
        _ => return None,
    };
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim())
}
