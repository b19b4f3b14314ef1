//! NFS version 4: 4.0 (RFC 7530), 4.1 (RFC 8881) and what 4.2 (RFC 7862) adds. One call, `COMPOUND`, is a list of operations.

use super::xdr::{Read, opaque};
use crate::dissect::{Cursor, Short};
use crate::entry::{Text, Value};

/// The most operations of one call.
const MAX_OPERATIONS: u32 = 256;
/// Replaces the layout of an operation behind which nothing can be read.
const END: &str = "end";

/// An operation: its number, name, arguments and results. What chooses between alternatives is read by [`arguments`] and
/// [`results`].
struct Operation(u32, &'static str, &'static str, &'static str);

const CHANGE: &str = ":u before:h after:h";

const OPERATIONS: &[Operation] = &[
    Operation(3, "ACCESS", "access:u", "supported:u access:u"),
    Operation(4, "CLOSE", "seqid:u stateid:16", "stateid:16"),
    Operation(5, "COMMIT", "offset:h count:u", "verifier:8"),
    Operation(6, "CREATE", "", ":u before:h after:h b"),
    Operation(7, "DELEGPURGE", "clientid:h", ""),
    Operation(8, "DELEGRETURN", "stateid:16", ""),
    Operation(9, "GETATTR", "b", "a"),
    Operation(10, "GETFH", "", "object:F"),
    Operation(11, "LINK", "newname:c", CHANGE),
    Operation(12, "LOCK", "", "stateid:16"),
    Operation(13, "LOCKT", "locktype:u offset:h length:h clientid:h owner:o", ""),
    Operation(14, "LOCKU", "locktype:u seqid:u stateid:16 offset:h length:h", "stateid:16"),
    Operation(15, "LOOKUP", "objname:c", ""),
    Operation(16, "LOOKUPP", "", ""),
    Operation(17, "NVERIFY", "a", ""),
    Operation(18, "OPEN", "", ""),
    Operation(19, "OPENATTR", "createdir:u", ""),
    Operation(20, "OPEN_CONFIRM", "stateid:16 seqid:u", "stateid:16"),
    Operation(21, "OPEN_DOWNGRADE", "stateid:16 seqid:u access:u deny:u", "stateid:16"),
    Operation(22, "PUTFH", "object:F", ""),
    Operation(23, "PUTPUBFH", "", ""),
    Operation(24, "PUTROOTFH", "", ""),
    Operation(25, "READ", "stateid:16 offset:h count:u", "eof:u length:n"),
    Operation(26, "READDIR", "cookie:h verifier:8 dircount:u maxcount:u b", END),
    Operation(27, "READLINK", "", "link:o"),
    Operation(28, "REMOVE", "target:c", CHANGE),
    Operation(29, "RENAME", "oldname:c newname:c", ":u :h :h :u :h :h"),
    Operation(30, "RENEW", "clientid:h", ""),
    Operation(31, "RESTOREFH", "", ""),
    Operation(32, "SAVEFH", "", ""),
    Operation(33, "SECINFO", "name:c", END),
    Operation(34, "SETATTR", "stateid:16 a", "b"),
    Operation(35, "SETCLIENTID", "verifier:8 id:o program:u netid:o addr:o ident:u", "clientid:h verifier:8"),
    Operation(36, "SETCLIENTID_CONFIRM", "clientid:h verifier:8", ""),
    Operation(37, "VERIFY", "a", ""),
    Operation(38, "WRITE", "stateid:16 offset:h stable:u length:n", "count:u committed:u verifier:8"),
    Operation(39, "RELEASE_LOCKOWNER", "clientid:h owner:o", ""),
    Operation(40, "BACKCHANNEL_CTL", END, ""),
    Operation(41, "BIND_CONN_TO_SESSION", "sessionid:16 dir:u rdma:u", "sessionid:16 dir:u rdma:u"),
    Operation(42, "EXCHANGE_ID", "verifier:8 ownerid:o flags:u end", END),
    Operation(43, "CREATE_SESSION", "clientid:h sequence:u flags:u end", END),
    Operation(44, "DESTROY_SESSION", "sessionid:16", ""),
    Operation(45, "FREE_STATEID", "stateid:16", ""),
    Operation(46, "GET_DIR_DELEGATION", END, END),
    Operation(47, "GETDEVICEINFO", END, END),
    Operation(48, "GETDEVICELIST", END, END),
    Operation(49, "LAYOUTCOMMIT", END, END),
    Operation(50, "LAYOUTGET", END, END),
    Operation(51, "LAYOUTRETURN", END, END),
    Operation(52, "SECINFO_NO_NAME", "style:u", END),
    Operation(
        53,
        "SEQUENCE",
        "sessionid:16 sequenceid:u slotid:u highest:u cachethis:u",
        "sessionid:16 sequenceid:u slotid:u highest:u target:u flags:u",
    ),
    Operation(54, "SET_SSV", END, END),
    Operation(55, "TEST_STATEID", END, END),
    Operation(56, "WANT_DELEGATION", END, END),
    Operation(57, "DESTROY_CLIENTID", "clientid:h", ""),
    Operation(58, "RECLAIM_COMPLETE", "one_fs:u", ""),
    Operation(59, "ALLOCATE", "stateid:16 offset:h length:h", ""),
    Operation(60, "COPY", END, END),
    Operation(61, "COPY_NOTIFY", END, END),
    Operation(62, "DEALLOCATE", "stateid:16 offset:h length:h", ""),
    Operation(63, "IO_ADVISE", END, END),
    Operation(64, "LAYOUTERROR", END, END),
    Operation(65, "LAYOUTSTATS", END, END),
    Operation(66, "OFFLOAD_CANCEL", "stateid:16", ""),
    Operation(67, "OFFLOAD_STATUS", "stateid:16", END),
    Operation(68, "READ_PLUS", "stateid:16 offset:h count:u", END),
    Operation(69, "SEEK", "stateid:16 offset:h what:u", "eof:u offset:h"),
    Operation(70, "WRITE_SAME", END, END),
    Operation(71, "CLONE", "source:16 destination:16 from:h to:h count:h", ""),
    Operation(72, "GETXATTR", "name:c", "value:o"),
    Operation(73, "SETXATTR", "option:u name:c value:o", CHANGE),
    Operation(74, "LISTXATTRS", "cookie:h maxcount:u", END),
    Operation(75, "REMOVEXATTR", "name:c", CHANGE),
    Operation(10_044, "ILLEGAL", "", ""),
];

/// What a call asks, or a reply tells.
#[derive(Debug, Default)]
pub struct Compound<'a> {
    /// The operation that the call is made for.
    pub main: &'static str,
    rank: u8,
    /// The handle that it starts from, the names on the way from there, and the handle that it comes to.
    pub from: Option<&'a [u8]>,
    pub names: Vec<&'a [u8]>,
    pub to: Option<&'a [u8]>,
    /// Each operation's fields, if asked for.
    pub operations: Vec<Value>,
    /// False if there are operations behind those that can be read.
    pub whole: bool,
}

impl<'a> Compound<'a> {
    /// Reads a call's arguments.
    pub fn arguments(cursor: &mut Cursor<'a>, detail: bool) -> Self {
        let mut compound = Self::default();
        compound.whole = compound.read_arguments(cursor, detail).is_ok();
        compound
    }

    /// Reads a reply's results, behind the status.
    pub fn results(cursor: &mut Cursor<'a>, detail: bool) -> Self {
        let mut compound = Self::default();
        compound.whole = compound.read_results(cursor, detail).is_ok();
        compound
    }

    fn read_arguments(&mut self, cursor: &mut Cursor<'a>, detail: bool) -> Result<(), Short> {
        opaque(cursor)?;
        cursor.skip(4)?;
        for _ in 0..cursor.u32()?.min(MAX_OPERATIONS) {
            let number = cursor.u32()?;
            let Operation(_, name, layout, _) = OPERATIONS.iter().find(|one| one.0 == number).ok_or(Short)?;
            self.is_for(name);
            let mut read = Read::new(detail);
            let came = arguments(number, &mut read, cursor).and_then(|()| read.layout(layout, cursor));
            if let (22, [handle]) = (number, &read.handles[..]) {
                (self.from, self.names) = (Some(*handle), Vec::new());
            }
            self.names.append(&mut read.names);
            self.operation(name, read, detail);
            came?;
        }
        Ok(())
    }

    fn read_results(&mut self, cursor: &mut Cursor<'a>, detail: bool) -> Result<(), Short> {
        opaque(cursor)?;
        for _ in 0..cursor.u32()?.min(MAX_OPERATIONS) {
            let number = cursor.u32()?;
            let Operation(_, name, _, layout) = OPERATIONS.iter().find(|one| one.0 == number).ok_or(Short)?;
            let mut read = Read::new(detail);
            let came = match read.number("status", cursor)? {
                0 => results(number, &mut read, cursor).and_then(|()| read.layout(layout, cursor)),
                // The one that fails is the last one.
                _ => Err(Short),
            };
            if let (10, [handle]) = (number, &read.handles[..]) {
                self.to = Some(*handle);
            }
            self.operation(name, read, detail);
            came?;
        }
        Ok(())
    }

    fn operation(&mut self, name: &'static str, read: Read<'a>, detail: bool) {
        if detail {
            let mut fields = vec![(Text::Borrowed("operation"), Value::from(name))];
            fields.extend(read.fields);
            self.operations.push(Value::Map(fields));
        }
    }

    /// The call is named by what changes or reads something, not by what leads there or is asked along the way.
    fn is_for(&mut self, name: &'static str) {
        let rank = match name {
            "PUTFH" | "PUTROOTFH" | "PUTPUBFH" | "GETFH" | "SAVEFH" | "RESTOREFH" | "SEQUENCE" => 1,
            "GETATTR" => 2,
            "ACCESS" => 3,
            "LOOKUP" | "LOOKUPP" => 4,
            _ => 5,
        };
        if rank > self.rank {
            (self.main, self.rank) = (name, rank);
        }
    }
}

/// Reads the arguments in which one chooses what follows.
fn arguments<'a>(number: u32, read: &mut Read<'a>, cursor: &mut Cursor<'a>) -> Result<(), Short> {
    match number {
        // CREATE: a link has its text, a device its numbers.
        6 => {
            match read.number("type", cursor)? {
                5 => read.layout("linkdata:o", cursor)?,
                3 | 4 => read.layout("major:u minor:u", cursor)?,
                _ => {}
            }
            read.layout("objname:c a", cursor)
        }
        // LOCK: the first of an owner names it.
        12 => {
            read.layout("locktype:u reclaim:u offset:h length:h", cursor)?;
            match read.number("", cursor)? {
                0 => read.layout("stateid:16 seqid:u", cursor),
                _ => read.layout("seqid:u stateid:16 :u clientid:h owner:o", cursor),
            }
        }
        // OPEN
        18 => {
            read.layout("seqid:u access:u deny:u clientid:h owner:o", cursor)?;
            if read.number("opentype", cursor)? == 1 {
                match read.number("createmode", cursor)? {
                    0 | 1 => read.layout("a", cursor)?,
                    2 => read.layout("verifier:8", cursor)?,
                    3 => read.layout("verifier:8 a", cursor)?,
                    _ => return Err(Short),
                }
            }
            match read.number("claim", cursor)? {
                0 | 3 => read.layout("file:c", cursor),
                1 => read.layout("delegate_type:u", cursor),
                2 => read.layout("stateid:16 file:c", cursor),
                4 | 6 => Ok(()),
                5 => read.layout("stateid:16", cursor),
                _ => Err(Short),
            }
        }
        _ => Ok(()),
    }
}

/// Reads the results in which one chooses what follows.
fn results<'a>(number: u32, read: &mut Read<'a>, cursor: &mut Cursor<'a>) -> Result<(), Short> {
    // OPEN
    if number != 18 {
        return Ok(());
    }
    read.layout("stateid:16 :u :h :h rflags:u b", cursor)?;
    match read.number("delegation", cursor)? {
        0 => Ok(()),
        // Whether it is going to be offered later.
        3 => match read.number("why_none", cursor)? {
            1 | 2 => read.layout(":u", cursor),
            _ => Ok(()),
        },
        // Who may, and how much: an entry of an access list.
        1 => read.layout("delegated:16 recall:u :u :u :u who:o", cursor),
        _ => Err(Short),
    }
}

/// The name of a status that version 3 lacks, without what tells the version.
pub fn status(number: u32) -> Option<&'static str> {
    const FIRST: u32 = 10_008;
    const NAMES: &[&str] = &[
        "DELAY",
        "SAME",
        "DENIED",
        "EXPIRED",
        "LOCKED",
        "GRACE",
        "FHEXPIRED",
        "SHARE_DENIED",
        "WRONGSEC",
        "CLID_INUSE",
        "RESOURCE",
        "MOVED",
        "NOFILEHANDLE",
        "MINOR_VERS_MISMATCH",
        "STALE_CLIENTID",
        "STALE_STATEID",
        "OLD_STATEID",
        "BAD_STATEID",
        "BAD_SEQID",
        "NOT_SAME",
        "LOCK_RANGE",
        "SYMLINK",
        "RESTOREFH",
        "LEASE_MOVED",
        "ATTRNOTSUPP",
        "NO_GRACE",
        "RECLAIM_BAD",
        "RECLAIM_CONFLICT",
        "BADXDR",
        "LOCKS_HELD",
        "OPENMODE",
        "BADOWNER",
        "BADCHAR",
        "BADNAME",
        "BAD_RANGE",
        "LOCK_NOTSUPP",
        "OP_ILLEGAL",
        "DEADLOCK",
        "FILE_OPEN",
        "ADMIN_REVOKED",
        "CB_PATH_DOWN",
        "BADIOMODE",
        "BADLAYOUT",
        "BAD_SESSION_DIGEST",
        "BADSESSION",
        "BADSLOT",
        "COMPLETE_ALREADY",
        "CONN_NOT_BOUND_TO_SESSION",
        "DELEG_ALREADY_WANTED",
        "BACK_CHAN_BUSY",
        "LAYOUTTRYLATER",
        "LAYOUTUNAVAILABLE",
        "NOMATCHING_LAYOUT",
        "RECALLCONFLICT",
        "UNKNOWN_LAYOUTTYPE",
        "SEQ_MISORDERED",
        "SEQUENCE_POS",
        "REQ_TOO_BIG",
        "REP_TOO_BIG",
        "REP_TOO_BIG_TO_CACHE",
        "RETRY_UNCACHED_REP",
        "UNSAFE_COMPOUND",
        "TOO_MANY_OPS",
        "OP_NOT_IN_SESSION",
        "HASH_ALG_UNSUPP",
        "",
        "CLIENTID_BUSY",
        "PNFS_IO_HOLE",
        "SEQ_FALSE_RETRY",
        "BAD_HIGH_SLOT",
        "DEADSESSION",
        "ENCR_ALG_UNSUPP",
        "PNFS_NO_LAYOUT",
        "NOT_ONLY_OP",
        "WRONG_CRED",
        "WRONG_TYPE",
        "DIRDELEG_UNAVAIL",
        "REJECT_DELEG",
        "RETURNCONFLICT",
        "DELEG_REVOKED",
    ];
    NAMES.get(number.checked_sub(FIRST)? as usize).copied().filter(|name| !name.is_empty())
}

/// The detail view's fields of a list of operations.
pub fn detail(compound: Compound<'_>) -> Vec<(Text, Value)> {
    let mut fields = vec![("operations".into(), Value::List(compound.operations))];
    if !compound.whole {
        fields.push(("more".into(), true.into()));
    }
    fields
}
