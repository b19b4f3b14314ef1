//! ONC RPC version 2 (RFC 5531): what comes before arguments and results.

use super::xdr::opaque;
use crate::dissect::{Cursor, Malformed, Short, text};
use crate::entry::{Text, Value};
use crate::fields;

/// `AUTH_SYS`, `RPCSEC_GSS` (RFC 2203).
const AUTH_SYS: u32 = 1;
const RPCSEC_GSS: u32 = 6;
/// The most bytes of credentials or of a verifier.
const MAX_AUTH: usize = 400;

/// Why a call was not carried out.
const REFUSALS: &[&str] = &["", "PROG_UNAVAIL", "PROG_MISMATCH", "PROC_UNAVAIL", "GARBAGE_ARGS", "SYSTEM_ERR"];

/// The head of a call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub xid: u32,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    flavor: u32,
    credentials: &'a [u8],
}

/// The head of a reply.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    pub xid: u32,
    /// Why there are no results.
    pub refused: Option<&'static str>,
}

/// Either.
#[derive(Clone, Copy, Debug)]
pub enum Head<'a> {
    Call(Call<'a>),
    Reply(Reply),
}

impl<'a> Head<'a> {
    /// `Ok(Err)` if these are no such bytes.
    pub fn read(cursor: &mut Cursor<'a>) -> Result<Result<Self, Malformed>, Short> {
        let xid = cursor.u32()?;
        Ok(Ok(match cursor.u32()? {
            0 => {
                if cursor.u32()? != 2 {
                    return Ok(Err(Malformed("another version of RPC")));
                }
                let (program, version, procedure) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
                let Ok((flavor, credentials)) = auth(cursor)? else { return Ok(Err(TOO_LONG)) };
                if auth(cursor)?.is_err() {
                    return Ok(Err(TOO_LONG));
                }
                Self::Call(Call { xid, program, version, procedure, flavor, credentials })
            }
            1 => {
                let refused = match cursor.u32()? {
                    0 => {
                        if auth(cursor)?.is_err() {
                            return Ok(Err(TOO_LONG));
                        }
                        match cursor.u32()? {
                            0 => None,
                            number => match REFUSALS.get(number as usize) {
                                Some(name) => Some(*name),
                                None => return Ok(Err(Malformed("a refusal that is not known"))),
                            },
                        }
                    }
                    1 => match cursor.u32()? {
                        0 => Some("RPC_MISMATCH"),
                        1 => Some("AUTH_ERROR"),
                        _ => return Ok(Err(Malformed("a refusal that is not known"))),
                    },
                    _ => return Ok(Err(Malformed("neither accepted nor denied"))),
                };
                Self::Reply(Reply { xid, refused })
            }
            _ => return Ok(Err(Malformed("neither a call nor a reply"))),
        }))
    }
}

const TOO_LONG: Malformed = Malformed("credentials that are too long");

fn auth<'a>(cursor: &mut Cursor<'a>) -> Result<Result<(u32, &'a [u8]), ()>, Short> {
    let flavor = cursor.u32()?;
    if Cursor::new(cursor.rest()).u32()? as usize > MAX_AUTH {
        return Ok(Err(()));
    }
    Ok(Ok((flavor, opaque(cursor)?)))
}

impl Call<'_> {
    /// False if what follows is wrapped for integrity or encrypted.
    pub fn is_plain(&self) -> bool {
        const NONE: u32 = 1;
        let service = || {
            let mut cursor = Cursor::new(self.credentials);
            cursor.skip(12).and_then(|()| cursor.u32())
        };
        self.flavor != RPCSEC_GSS || service() == Ok(NONE)
    }

    /// Who asks.
    pub fn caller(&self) -> Value {
        let flavor = match self.flavor {
            0 => "AUTH_NONE",
            AUTH_SYS => "AUTH_SYS",
            RPCSEC_GSS => "RPCSEC_GSS",
            _ => "other",
        };
        let mut caller = vec![(Text::Borrowed("flavor"), Value::from(flavor))];
        if self.flavor == AUTH_SYS
            && let Ok((machine, uid, gid)) = sys(self.credentials)
            && let Value::Map(more) = fields! { "machine" => text::value(machine), "uid" => uid, "gid" => gid }
        {
            caller.extend(more);
        }
        Value::Map(caller)
    }
}

fn sys(credentials: &[u8]) -> Result<(&[u8], u32, u32), Short> {
    let mut cursor = Cursor::new(credentials);
    cursor.skip(4)?;
    Ok((opaque(&mut cursor)?, cursor.u32()?, cursor.u32()?))
}
