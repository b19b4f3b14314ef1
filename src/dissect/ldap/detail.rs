//! The fields of each operation (RFC 4511 section 4), for the detail.

use super::ber::{self, Fault};
use super::operation::Operation;
use super::{filter, oid};
use crate::dissect::{Cursor, Cx, text};
use crate::entry::{Text, Value};
use crate::fields;

/// The most values, attributes or names of one list that are shown.
const MAX_LIST: usize = 1000;

/// Attributes whose values nobody should see, in lower case.
const SECRETS: &[&[u8]] = &[
    b"authpassword",
    b"clearpassword",
    b"krbprincipalkey",
    b"lmpwdhistory",
    b"ms-mcs-admpwd",
    b"mslaps-password",
    b"ntpwdhistory",
    b"olcdbbindpw",
    b"olcrootpw",
    b"oathsecret",
    b"sambalmpassword",
    b"sambantpassword",
    b"sambapasswordhistory",
    b"supplementalcredentials",
    b"unicodepwd",
    b"userpassword",
];

type Fields = Vec<(Text, Value)>;

/// True for attributes that hold passwords, with options or without.
pub(super) fn is_secret(attribute: &[u8]) -> bool {
    let name = attribute.split(|byte| *byte == b';').next().unwrap_or_default();
    SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// The fields of an operation, as far as its content goes; false if it goes not far enough.
pub(super) fn operation(operation: Operation, content: &[u8], hides: bool, cx: &Cx<'_>) -> (Fields, bool) {
    let mut fields = Vec::new();
    let mut cursor = Cursor::new(content);
    let secrets = cx.secrets();
    let parsed = match operation {
        Operation::BindRequest => bind(&mut cursor, &mut fields, secrets),
        Operation::SearchRequest => search(&mut cursor, &mut fields, secrets),
        Operation::SearchResultEntry => named(&mut cursor, &mut fields, "object_name").and_then(|()| {
            fields.push(("attributes".into(), attributes(ber::expect(&mut cursor, ber::SEQUENCE)?, secrets)?));
            Ok(())
        }),
        Operation::SearchResultReference => uris(content).map(|uris| fields.push(("uris".into(), uris))),
        Operation::ModifyRequest => modify(&mut cursor, &mut fields, secrets),
        Operation::AddRequest => named(&mut cursor, &mut fields, "entry").and_then(|()| {
            fields.push(("attributes".into(), attributes(ber::expect(&mut cursor, ber::SEQUENCE)?, secrets)?));
            Ok(())
        }),
        Operation::DelRequest => {
            fields.push(("entry".into(), text::value(content)));
            Ok(())
        }
        Operation::ModifyDnRequest => modify_dn(&mut cursor, &mut fields),
        Operation::CompareRequest => compare(&mut cursor, &mut fields, secrets),
        Operation::AbandonRequest => {
            ber::number(content).map(|id| fields.push(("abandoned_message_id".into(), id.into())))
        }
        Operation::UnbindRequest => Ok(()),
        Operation::ExtendedRequest => extended(&mut cursor, &mut fields, ["request_name", "request_value"], secrets),
        Operation::IntermediateResponse => {
            extended(&mut cursor, &mut fields, ["response_name", "response_value"], secrets)
        }
        _ => result(&mut cursor, &mut fields, hides && !secrets),
    };
    (fields, parsed.is_ok())
}

/// The name that most operations start with.
fn named(cursor: &mut Cursor<'_>, fields: &mut Fields, name: &'static str) -> Result<(), Fault> {
    fields.push((name.into(), text::value(ber::expect(cursor, ber::OCTET_STRING)?)));
    Ok(())
}

fn bind(cursor: &mut Cursor<'_>, fields: &mut Fields, secrets: bool) -> Result<(), Fault> {
    fields.push(("version".into(), ber::number(ber::expect(cursor, ber::INTEGER)?)?.into()));
    named(cursor, fields, "name")?;
    let hidden = |secret: &[u8]| if secrets { text::octets(secret) } else { text::HIDDEN.into() };
    let (tag, content) = ber::element(cursor)?;
    let authentication = match tag {
        // Without a password, who binds is nobody: that is worth seeing.
        0x80 if content.is_empty() => fields! { "simple" => "" },
        0x80 => fields! { "simple" => hidden(content) },
        0xa3 => {
            let mut sasl = Cursor::new(content);
            let mut shown = vec![("mechanism".into(), text::value(ber::expect(&mut sasl, ber::OCTET_STRING)?))];
            if let Some(credentials) = ber::optional(&mut sasl, ber::OCTET_STRING)? {
                shown.push(("credentials".into(), hidden(credentials)));
            }
            fields! { "sasl" => shown }
        }
        // Windows: NTLM without SASL.
        0x89 => fields! { "sicily_package_discovery" => text::octets(content) },
        0x8a => fields! { "sicily_negotiate" => hidden(content) },
        0x8b => fields! { "sicily_response" => hidden(content) },
        _ => fields! { "tag" => tag, "value" => hidden(content) },
    };
    fields.push(("authentication".into(), authentication));
    Ok(())
}

fn search(cursor: &mut Cursor<'_>, fields: &mut Fields, secrets: bool) -> Result<(), Fault> {
    named(cursor, fields, "base_object")?;
    let scope = ber::number(ber::expect(cursor, ber::ENUMERATED)?)?;
    let scope_name = match scope {
        0 => "baseObject".into(),
        1 => "singleLevel".into(),
        2 => "wholeSubtree".into(),
        3 => "subordinateSubtree".into(),
        _ => Value::from(scope),
    };
    fields.push(("scope".into(), scope_name));
    let aliases = ber::number(ber::expect(cursor, ber::ENUMERATED)?)?;
    let aliases = match aliases {
        0 => "neverDerefAliases".into(),
        1 => "derefInSearching".into(),
        2 => "derefFindingBaseObj".into(),
        3 => "derefAlways".into(),
        _ => Value::from(aliases),
    };
    fields.push(("deref_aliases".into(), aliases));
    fields.push(("size_limit".into(), ber::number(ber::expect(cursor, ber::INTEGER)?)?.into()));
    fields.push(("time_limit".into(), ber::number(ber::expect(cursor, ber::INTEGER)?)?.into()));
    fields.push(("types_only".into(), (ber::expect(cursor, ber::BOOLEAN)? != [0]).into()));
    fields.push(("filter".into(), filter::render(cursor, secrets)?.into()));
    let mut names = Cursor::new(ber::expect(cursor, ber::SEQUENCE)?);
    let mut list = Vec::new();
    while !names.is_empty() && list.len() < MAX_LIST {
        list.push(text::value(ber::expect(&mut names, ber::OCTET_STRING)?));
    }
    fields.push(("attributes".into(), list.into()));
    Ok(())
}

/// Attributes, each with a type and a set of values.
fn attributes(content: &[u8], secrets: bool) -> Result<Value, Fault> {
    let mut cursor = Cursor::new(content);
    let mut list = Vec::new();
    while !cursor.is_empty() && list.len() < MAX_LIST {
        list.push(attribute(&mut cursor, secrets)?);
    }
    Ok(list.into())
}

fn attribute(cursor: &mut Cursor<'_>, secrets: bool) -> Result<Value, Fault> {
    let mut parts = Cursor::new(ber::expect(cursor, ber::SEQUENCE)?);
    let name = ber::expect(&mut parts, ber::OCTET_STRING)?;
    let mut values = Cursor::new(ber::expect(&mut parts, ber::SET)?);
    let mut list = Vec::new();
    while !values.is_empty() && list.len() < MAX_LIST {
        list.push(shown(name, ber::expect(&mut values, ber::OCTET_STRING)?, secrets));
    }
    Ok(fields! { "type" => text::value(name), "values" => list })
}

/// A value of an attribute.
fn shown(attribute: &[u8], value: &[u8], secrets: bool) -> Value {
    if is_secret(attribute) && !secrets { text::HIDDEN.into() } else { text::octets(value) }
}

fn modify(cursor: &mut Cursor<'_>, fields: &mut Fields, secrets: bool) -> Result<(), Fault> {
    named(cursor, fields, "object")?;
    let mut changes = Cursor::new(ber::expect(cursor, ber::SEQUENCE)?);
    let mut list = Vec::new();
    while !changes.is_empty() && list.len() < MAX_LIST {
        let mut change = Cursor::new(ber::expect(&mut changes, ber::SEQUENCE)?);
        let operation = ber::number(ber::expect(&mut change, ber::ENUMERATED)?)?;
        let operation = match operation {
            0 => "add".into(),
            1 => "delete".into(),
            2 => "replace".into(),
            3 => "increment".into(),
            _ => Value::from(operation),
        };
        list.push(fields! { "operation" => operation, "modification" => attribute(&mut change, secrets)? });
    }
    fields.push(("changes".into(), list.into()));
    Ok(())
}

fn modify_dn(cursor: &mut Cursor<'_>, fields: &mut Fields) -> Result<(), Fault> {
    named(cursor, fields, "entry")?;
    named(cursor, fields, "newrdn")?;
    fields.push(("deleteoldrdn".into(), (ber::expect(cursor, ber::BOOLEAN)? != [0]).into()));
    if let Some(superior) = ber::optional(cursor, 0x80)? {
        fields.push(("new_superior".into(), text::value(superior)));
    }
    Ok(())
}

fn compare(cursor: &mut Cursor<'_>, fields: &mut Fields, secrets: bool) -> Result<(), Fault> {
    named(cursor, fields, "entry")?;
    let mut assertion = Cursor::new(ber::expect(cursor, ber::SEQUENCE)?);
    let attribute = ber::expect(&mut assertion, ber::OCTET_STRING)?;
    fields.push(("attribute_desc".into(), text::value(attribute)));
    let value = ber::expect(&mut assertion, ber::OCTET_STRING)?;
    fields.push(("assertion_value".into(), shown(attribute, value, secrets)));
    Ok(())
}

/// The name and value of an extended request or an intermediate response.
fn extended(
    cursor: &mut Cursor<'_>,
    fields: &mut Fields,
    [name, value]: [&'static str; 2],
    secrets: bool,
) -> Result<(), Fault> {
    let oid = ber::optional(cursor, 0x80)?;
    if let Some(oid) = oid {
        fields.push((name.into(), text::value(oid)));
        if let Some(known) = oid::name(oid) {
            fields.push(("name".into(), known.into()));
        }
    }
    if let Some(content) = ber::optional(cursor, 0x81)? {
        let hidden = oid == Some(super::PASSWORD_MODIFY) && !secrets;
        fields.push((value.into(), if hidden { text::HIDDEN.into() } else { text::octets(content) }));
    }
    Ok(())
}

/// `LDAPResult`, and what bind and extended responses have behind it; `hidden` if that is a new password.
fn result(cursor: &mut Cursor<'_>, fields: &mut Fields, hidden: bool) -> Result<(), Fault> {
    let code = ber::number(ber::expect(cursor, ber::ENUMERATED)?)?;
    fields.push(("result_code".into(), code.into()));
    if let Some(name) = oid::result(code) {
        fields.push(("result_name".into(), name.into()));
    }
    named(cursor, fields, "matched_dn")?;
    named(cursor, fields, "diagnostic_message")?;
    while !cursor.is_empty() {
        match ber::element(cursor)? {
            (0xa3, referral) => fields.push(("referral".into(), uris(referral)?)),
            (0x87, credentials) => {
                let credentials = if hidden { text::HIDDEN.into() } else { text::octets(credentials) };
                fields.push(("server_sasl_creds".into(), credentials));
            }
            (0x8a, name) => {
                fields.push(("response_name".into(), text::value(name)));
                fields.extend(oid::name(name).map(|name| ("name".into(), name.into())));
            }
            (0x8b, value) => {
                let value = if hidden { text::HIDDEN.into() } else { text::octets(value) };
                fields.push(("response_value".into(), value));
            }
            _ => {}
        }
    }
    Ok(())
}

fn uris(content: &[u8]) -> Result<Value, Fault> {
    let mut cursor = Cursor::new(content);
    let mut list = Vec::new();
    while !cursor.is_empty() && list.len() < MAX_LIST {
        list.push(text::value(ber::expect(&mut cursor, ber::OCTET_STRING)?));
    }
    Ok(list.into())
}

/// What follows the operation.
pub(super) fn controls(bytes: &[u8]) -> Result<Value, Fault> {
    let mut controls = Cursor::new(ber::expect(&mut Cursor::new(bytes), 0xa0)?);
    let mut list = Vec::new();
    while !controls.is_empty() && list.len() < MAX_LIST {
        let mut control = Cursor::new(ber::expect(&mut controls, ber::SEQUENCE)?);
        let kind = ber::expect(&mut control, ber::OCTET_STRING)?;
        let mut fields = vec![("control_type".into(), text::value(kind))];
        fields.extend(oid::name(kind).map(|name| ("name".into(), name.into())));
        let critical = ber::optional(&mut control, ber::BOOLEAN)?.is_some_and(|critical| critical != [0]);
        fields.push(("criticality".into(), critical.into()));
        if let Some(value) = ber::optional(&mut control, ber::OCTET_STRING)? {
            fields.push(("control_value".into(), paged(kind, value).unwrap_or_else(|| text::octets(value))));
        }
        list.push(Value::Map(fields));
    }
    Ok(list.into())
}

/// The value of the paged results control (RFC 2696).
fn paged(kind: &[u8], value: &[u8]) -> Option<Value> {
    if kind != b"1.2.840.113556.1.4.319" {
        return None;
    }
    let mut parts = Cursor::new(ber::expect(&mut Cursor::new(value), ber::SEQUENCE).ok()?);
    let size = ber::number(ber::expect(&mut parts, ber::INTEGER).ok()?).ok()?;
    let cookie = ber::expect(&mut parts, ber::OCTET_STRING).ok()?;
    Some(fields! { "size" => size, "cookie" => text::hex(cookie) })
}
