//! A value as one line.

/// Appends `value` and a line end. JSON has raw line breaks only between its tokens, where a space means the same, so
/// each CR and LF becomes one; inside strings JSON writes them as `\r` and `\n`, and those stay. In a value that is not
/// JSON a raw line break inside a string would become a space too: one line is what readers of the file rely on.
pub(crate) fn push(line: &mut Vec<u8>, value: &[u8]) {
    let start = line.len();
    line.extend_from_slice(value);
    let mut rest = &mut line[start..];
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        rest[at] = b' ';
        rest = &mut rest[at + 1..];
    }
    line.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: &str) -> String {
        let mut line = Vec::new();
        push(&mut line, value.as_bytes());
        String::from_utf8(line).expect("ASCII changes keep UTF-8")
    }

    #[test]
    fn a_value_is_one_line() {
        assert_eq!(line("{}"), "{}\n");
        assert_eq!(line("{\r\n \"a\":\n1.0}\n"), "{   \"a\": 1.0} \n");
        assert_eq!(line(r#"{"a":"x\ny"}"#), "{\"a\":\"x\\ny\"}\n");
    }
}
