//! What the databases share: a statement as rows show it, and whether bytes are one.

use super::text;

/// The most bytes of a statement that are looked at and shown.
pub(super) const MAX_SQL: usize = 64 << 10;
/// The warning of rows whose statement is longer.
pub(super) const CUT: &str = "only the beginning of its statement is shown";

/// First words of statements, in upper case.
const STATEMENTS: &[&[u8]] = &[
    b"ALTER",
    b"ANALYZE",
    b"BASE_BACKUP",
    b"BEGIN",
    b"CALL",
    b"CHECK",
    b"CHECKPOINT",
    b"CLOSE",
    b"CLUSTER",
    b"COMMENT",
    b"COMMIT",
    b"COPY",
    b"CREATE",
    b"DEALLOCATE",
    b"DECLARE",
    b"DELETE",
    b"DESC",
    b"DESCRIBE",
    b"DISCARD",
    b"DO",
    b"DROP",
    b"END",
    b"EXECUTE",
    b"EXPLAIN",
    b"FETCH",
    b"FLUSH",
    b"GRANT",
    b"HANDLER",
    b"IDENTIFY_SYSTEM",
    b"IMPORT",
    b"INSERT",
    b"KILL",
    b"LISTEN",
    b"LOAD",
    b"LOCK",
    b"MERGE",
    b"MOVE",
    b"NOTIFY",
    b"OPTIMIZE",
    b"PREPARE",
    b"PURGE",
    b"REFRESH",
    b"REINDEX",
    b"RELEASE",
    b"RENAME",
    b"REPAIR",
    b"REPLACE",
    b"RESET",
    b"REVOKE",
    b"ROLLBACK",
    b"SAVEPOINT",
    b"SELECT",
    b"SET",
    b"SHOW",
    b"START",
    b"START_REPLICATION",
    b"TABLE",
    b"TRUNCATE",
    b"UNLISTEN",
    b"UPDATE",
    b"USE",
    b"VACUUM",
    b"VALUES",
    b"WITH",
    b"XA",
];
/// First words of statements that may hold the password of an account.
const WITH_PASSWORDS: &[&[u8]] = &[b"ALTER", b"CHANGE", b"CREATE", b"GRANT", b"SET", b"START"];
/// Words before a literal that is a password or its hash, in a statement that says IDENTIFIED.
const BEFORE_SECRETS: &[&[u8]] = &[b"BY", b"AS", b"USING", b"REPLACE"];
/// The longest first word.
const MAX_WORD: usize = 20;

/// The statement as text, with the passwords of accounts hidden unless `secrets`.
pub(super) fn shown(sql: &[u8], secrets: bool) -> String {
    if !secrets
        && (has(sql, b"PASSWORD") || has(sql, b"IDENTIFIED"))
        && let Some(hidden) = without_passwords(sql)
    {
        return text::string(&hidden);
    }
    text::string(sql)
}

/// True if the bytes begin as a statement does.
pub(super) fn is_statement(bytes: &[u8]) -> bool {
    first_word(bytes).is_some_and(|word| is_one_of(word, STATEMENTS))
}

/// True if the bytes could be a statement that begins in a way of its own: UTF-8 without control characters.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

/// True if the word is somewhere in it, in upper or lower case.
fn has(sql: &[u8], word: &[u8]) -> bool {
    let Some(&first) = word.first() else { return true };
    memchr::memchr2_iter(first, first.to_ascii_lowercase(), sql)
        .any(|at| sql.get(at..at + word.len()).is_some_and(|there| there.eq_ignore_ascii_case(word)))
}

fn is_one_of(word: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|other| word.eq_ignore_ascii_case(other))
}

/// The first word, behind blanks, comments and parentheses.
fn first_word(mut sql: &[u8]) -> Option<&[u8]> {
    loop {
        sql = sql.trim_ascii_start();
        sql = match sql {
            [b'(', rest @ ..] => rest,
            [b'/', b'*', rest @ ..] => rest.get(memchr::memmem::find(rest, b"*/")? + 2..)?,
            [b'-', b'-', rest @ ..] | [b'#', rest @ ..] => rest.get(memchr::memchr(b'\n', rest)?..)?,
            _ => break,
        };
    }
    let word = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let end = sql.iter().take(MAX_WORD).position(|byte| !word(byte)).unwrap_or(sql.len().min(MAX_WORD));
    sql.get(..end).filter(|word| !word.is_empty())
}

/// The statement with its passwords replaced; `None` if there are none.
fn without_passwords(sql: &[u8]) -> Option<Vec<u8>> {
    let mut hidden: Option<Vec<u8>> = None;
    // What is copied so far, the last word, and the last word or sign.
    let (mut copied, mut word, mut sign) = (0, &[][..], 0);
    // What is known of the statement, of which there may be several.
    let (mut holds, mut identified, mut set_password, mut words) = (false, false, false, 0);
    let mut at = 0;
    while let Some(&byte) = sql.get(at) {
        let rest = sql.get(at..).unwrap_or_default();
        let len = match byte {
            b'\'' | b'"' => {
                let len = literal(rest, byte);
                let secret = ends_with(word, b"PASSWORD")
                    || word.eq_ignore_ascii_case(b"CONNECTION")
                    || identified && is_one_of(word, BEFORE_SECRETS)
                    || set_password && sign == b'=';
                if holds && secret {
                    let hidden = hidden.get_or_insert_default();
                    hidden.extend_from_slice(sql.get(copied..=at).unwrap_or_default());
                    hidden.extend_from_slice(text::HIDDEN.as_bytes());
                    copied = if rest.get(len - 1) == Some(&byte) && len > 1 { at + len - 1 } else { at + len };
                }
                (word, sign) = (&[], 0);
                len
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let len = rest.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'_').unwrap_or(rest.len());
                word = rest.get(..len).unwrap_or_default();
                words += 1;
                if words == 1 {
                    holds = is_one_of(word, WITH_PASSWORDS);
                }
                identified |= word.eq_ignore_ascii_case(b"IDENTIFIED");
                set_password |= words == 2 && word.eq_ignore_ascii_case(b"PASSWORD");
                sign = 0;
                len
            }
            b' ' | b'\t' | b'\r' | b'\n' | b'(' => 1,
            b'/' if rest.starts_with(b"/*") => memchr::memmem::find(rest, b"*/").map_or(rest.len(), |end| end + 2),
            b';' => {
                (word, sign) = (&[], 0);
                (holds, identified, set_password, words) = (false, false, false, 0);
                1
            }
            b'=' => {
                sign = b'=';
                1
            }
            _ => {
                (word, sign) = (&[], 0);
                1
            }
        };
        at += len;
    }
    let mut hidden = hidden?;
    hidden.extend_from_slice(sql.get(copied..).unwrap_or_default());
    Some(hidden)
}

fn ends_with(word: &[u8], end: &[u8]) -> bool {
    word.len().checked_sub(end.len()).and_then(|at| word.get(at..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// The length of the literal at the start of `sql`, with its quotes.
fn literal(sql: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(&byte) = sql.get(at) {
        at += match byte {
            b'\\' => 2,
            _ if byte == quote && sql.get(at + 1) == Some(&quote) => 2,
            _ if byte == quote => return at + 1,
            _ => 1,
        };
    }
    sql.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_accounts_are_hidden() {
        for (sql, is) in [
            ("CREATE USER a PASSWORD 'x''y' LOGIN", "CREATE USER a PASSWORD '[hidden]' LOGIN"),
            ("alter user 'a'@'%' identified by \"x\"", "alter user 'a'@'%' identified by \"[hidden]\""),
            ("CREATE USER a IDENTIFIED WITH 'p' AS 'h'", "CREATE USER a IDENTIFIED WITH 'p' AS '[hidden]'"),
            ("SET PASSWORD FOR 'a'@'%' = 'x'", "SET PASSWORD FOR 'a'@'%' = '[hidden]'"),
            ("SET PASSWORD = PASSWORD('x')", "SET PASSWORD = PASSWORD('[hidden]')"),
            (
                "CHANGE MASTER TO MASTER_PASSWORD='x', MASTER_PORT=1",
                "CHANGE MASTER TO MASTER_PASSWORD='[hidden]', MASTER_PORT=1",
            ),
            ("/* a */ ALTER ROLE a PASSWORD 'x", "/* a */ ALTER ROLE a PASSWORD '[hidden]"),
            (
                "SELECT 1; ALTER ROLE a PASSWORD 'x'; SELECT 'PASSWORD' 'y'",
                "SELECT 1; ALTER ROLE a PASSWORD '[hidden]'; SELECT 'PASSWORD' 'y'",
            ),
            ("SET names 'utf8'", "SET names 'utf8'"),
            ("SELECT * FROM t WHERE password = 'x'", "SELECT * FROM t WHERE password = 'x'"),
        ] {
            assert_eq!(shown(sql.as_bytes(), false), is);
            assert_eq!(shown(sql.as_bytes(), true), sql);
        }
    }

    #[test]
    fn statements_are_recognised_by_their_first_word() {
        assert!(is_statement(b"  (select 1)"));
        assert!(is_statement(b"/* hint */ -- more\n INSERT INTO t"));
        assert!(!is_statement(b"selector"));
        assert!(!is_statement(b""));
        assert!(!is_text("ж".as_bytes().get(..1).unwrap_or_default()));
        assert!(is_text("aж".as_bytes().get(..2).unwrap_or_default()));
    }
}
