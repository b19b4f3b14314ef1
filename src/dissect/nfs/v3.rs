//! NFS version 3 (RFC 1813), and the MOUNT protocol beside it: procedures and how their arguments and results begin.

/// A procedure: its name, its arguments, and its results if it succeeds, as far as they matter.
#[derive(Debug)]
pub struct Procedure(pub &'static str, pub &'static str, pub &'static str);

/// Of NFS, by number.
pub const NFS: &[Procedure] = &[
    Procedure("NULL", "", ""),
    Procedure("GETATTR", "object:F", ""),
    Procedure("SETATTR", "object:F", ""),
    Procedure("LOOKUP", "dir:F name:c", "object:F"),
    Procedure("ACCESS", "object:F access:u", ""),
    Procedure("READLINK", "symlink:F", ""),
    Procedure("READ", "file:F offset:h count:u", ""),
    Procedure("WRITE", "file:F offset:h count:u stable:u", ""),
    Procedure("CREATE", "dir:F name:c", "follows:u object:F"),
    Procedure("MKDIR", "dir:F name:c", "follows:u object:F"),
    Procedure("SYMLINK", "dir:F name:c", "follows:u object:F"),
    Procedure("MKNOD", "dir:F name:c", "follows:u object:F"),
    Procedure("REMOVE", "dir:F name:c", ""),
    Procedure("RMDIR", "dir:F name:c", ""),
    Procedure("RENAME", "from_dir:F from_name:c to_dir:F to_name:c", ""),
    Procedure("LINK", "file:F link_dir:F link_name:c", ""),
    Procedure("READDIR", "dir:F cookie:h", ""),
    Procedure("READDIRPLUS", "dir:F cookie:h", ""),
    Procedure("FSSTAT", "fsroot:F", ""),
    Procedure("FSINFO", "fsroot:F", ""),
    Procedure("PATHCONF", "object:F", ""),
    Procedure("COMMIT", "file:F offset:h count:u", ""),
];

/// Of MOUNT, by number.
pub const MOUNT: &[Procedure] = &[
    Procedure("NULL", "", ""),
    Procedure("MNT", "dirpath:c", "fhandle:F"),
    Procedure("DUMP", "", ""),
    Procedure("UMNT", "dirpath:c", ""),
    Procedure("UMNTALL", "", ""),
    Procedure("EXPORT", "", ""),
];

/// The name of a status of either version without what tells the version: `NOENT`.
pub fn status(number: u32) -> Option<&'static str> {
    Some(match number {
        1 => "PERM",
        2 => "NOENT",
        5 => "IO",
        6 => "NXIO",
        13 => "ACCES",
        17 => "EXIST",
        18 => "XDEV",
        19 => "NODEV",
        20 => "NOTDIR",
        21 => "ISDIR",
        22 => "INVAL",
        27 => "FBIG",
        28 => "NOSPC",
        30 => "ROFS",
        31 => "MLINK",
        63 => "NAMETOOLONG",
        66 => "NOTEMPTY",
        69 => "DQUOT",
        70 => "STALE",
        71 => "REMOTE",
        10_001 => "BADHANDLE",
        10_002 => "NOT_SYNC",
        10_003 => "BAD_COOKIE",
        10_004 => "NOTSUPP",
        10_005 => "TOOSMALL",
        10_006 => "SERVERFAULT",
        10_007 => "BADTYPE",
        10_008 => "JUKEBOX",
        _ => return None,
    })
}
