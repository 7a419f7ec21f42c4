//! Names and texts inside SQL statements. Pure.
//!
//! Administration statements take no parameters, so texts must be written into them. Every session that
//! Cotton opens has an `sql_mode` without `NO_BACKSLASH_ESCAPES` and `ANSI_QUOTES`.

/// A text as an SQL string literal.
pub fn text(value: &str) -> String {
    let mut literal = String::with_capacity(value.len() + 2);
    literal.push('\'');
    for c in value.chars() {
        match c {
            '\'' => literal.push_str("''"),
            '\\' => literal.push_str("\\\\"),
            '\0' => literal.push_str("\\0"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\x1a' => literal.push_str("\\Z"),
            c => literal.push(c),
        }
    }
    literal.push('\'');
    literal
}

/// An account as `'user'@'host'`.
pub fn account(user: &str, host: &str) -> String {
    format!("{}@{}", text(user), text(host))
}

/// A name in backquotes.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_leave_their_quotes() {
        assert_eq!(text(r"a'b\c"), r"'a''b\\c'");
        assert_eq!(text("a\nb\0"), r"'a\nb\0'");
        assert_eq!(identifier("a`b"), "`a``b`");
        assert_eq!(account("x' OR '", "%"), "'x'' OR '''@'%'");
    }
}
