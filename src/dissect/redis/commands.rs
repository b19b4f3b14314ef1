//! What is to be known of each command: where its first key is, how it is answered, which of its arguments are secrets.

/// Where a command's first key is. Positions count from the command, which is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// It has none, or it was found.
    None,
    At(usize),
    /// After the number of keys, which is here; there may be 0.
    Counted(usize),
    /// After this word.
    After(&'static str),
    /// Second argument, if the first is this word.
    Of(&'static str),
    /// Third argument or, if that is empty, after `KEYS`.
    Migrate,
}

/// How a command is answered, if not by one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// By one reply.
    None,
    /// By as many confirmations of this kind as there are channels.
    Confirmed(&'static str),
    /// By `+OK`, and then by the commands of others.
    Monitor,
    /// By a snapshot, and then by the commands of others.
    Sync,
    /// By one reply; what was switched on is off again.
    Reset,
    /// A `CLIENT` that may be `CLIENT REPLY`.
    Client,
    ClientReply,
    /// Replies come from here on, first to this.
    ReplyOn,
    /// No replies from here on.
    ReplyOff,
    /// No reply to this and to the next.
    ReplySkip,
    /// A `REPLCONF` that may be `REPLCONF ACK`.
    Replconf,
    /// A replica tells how far it is: not answered.
    Ack,
    /// An `ACL` that may be answered by password hashes.
    Acl,
    /// The reply is a secret.
    Secret,
    /// The reply may name secrets.
    Config,
}

/// What is known of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) key: Key,
    pub(super) effect: Effect,
}

/// The longest word that is looked up.
const MAX_WORD: usize = 24;

/// The command of that name, in any case.
pub(super) fn find(word: &[u8]) -> Option<Known> {
    let mut upper = [0; MAX_WORD];
    let upper = upper.get_mut(..word.len())?;
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    let upper: &[u8] = upper;
    let search = |names: &[&'static str]| -> Option<&'static str> {
        names.binary_search_by(|name| name.as_bytes().cmp(upper)).ok().and_then(|at| names.get(at).copied())
    };
    let plain = |name, key| Known { name, key, effect: Effect::None };
    search(FIRST)
        .map(|name| plain(name, Key::At(1)))
        .or_else(|| search(KEYLESS).map(|name| plain(name, Key::None)))
        .or_else(|| {
            let at = OTHERS.binary_search_by(|(name, ..)| name.as_bytes().cmp(upper)).ok()?;
            OTHERS.get(at).map(|(name, key, effect)| Known { name, key: *key, effect: *effect })
        })
}

impl Key {
    /// True if the argument at this position has to be seen.
    pub(super) fn wants(self, position: usize) -> bool {
        match self {
            Self::None => false,
            Self::At(at) | Self::Counted(at) => at == position,
            Self::After(_) => true,
            Self::Of(_) => position == 1,
            Self::Migrate => position == 3,
        }
    }

    /// Looks at an argument; true if it is the key.
    pub(super) fn meet(&mut self, position: usize, argument: &[u8]) -> bool {
        if !self.wants(position) {
            return false;
        }
        let (next, found) = match *self {
            Self::Counted(_) if argument == b"0" => (Self::None, false),
            Self::Counted(_) => (Self::At(position + 1), false),
            Self::After(word) if argument.eq_ignore_ascii_case(word.as_bytes()) => (Self::At(position + 1), false),
            Self::Of(word) if argument.eq_ignore_ascii_case(word.as_bytes()) => (Self::At(2), false),
            Self::Migrate if argument.is_empty() => (Self::After("KEYS"), false),
            Self::At(_) | Self::Migrate => (Self::None, true),
            Self::Of(_) | Self::None => (Self::None, false),
            Self::After(_) => (*self, false),
        };
        *self = next;
        found
    }
}

impl Effect {
    /// True if the argument at this position has to be seen.
    pub(super) fn wants(self, position: usize) -> bool {
        match self {
            Self::Client | Self::Replconf | Self::Acl => position == 1,
            Self::ClientReply => position == 2,
            _ => false,
        }
    }

    /// Looks at an argument.
    #[must_use]
    pub(super) fn meet(self, position: usize, argument: &[u8]) -> Self {
        if !self.wants(position) {
            return self;
        }
        let is = |word: &str| argument.eq_ignore_ascii_case(word.as_bytes());
        match self {
            Self::Client if is("REPLY") => Self::ClientReply,
            Self::ClientReply if is("ON") => Self::ReplyOn,
            Self::ClientReply if is("OFF") => Self::ReplyOff,
            Self::ClientReply if is("SKIP") => Self::ReplySkip,
            Self::Replconf if is("ACK") => Self::Ack,
            Self::Acl if is("GETUSER") || is("LIST") || is("GENPASS") => Self::Secret,
            _ => Self::None,
        }
    }
}

/// Finds the arguments that are secrets.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// The secret is so many arguments further.
    due: Option<u8>,
}

impl Secrets {
    /// Looks at the next argument of a command with `count` words; true if nobody should see it.
    pub(super) fn meet(&mut self, command: &str, position: usize, count: u64, argument: &[u8]) -> bool {
        let due = self.due.take();
        if due == Some(1) {
            return true;
        }
        self.due = due.map(|due| due - 1);
        let is = |word: &str| argument.eq_ignore_ascii_case(word.as_bytes());
        match command {
            // AUTH [user] password
            "AUTH" => return position >= 2 || count == 2 && position == 1,
            "ACL" => return position >= 3 && matches!(argument.first(), Some(b'>' | b'<' | b'#' | b'!')),
            "HELLO" if is("AUTH") => self.due = Some(2),
            "MIGRATE" if is("AUTH") => self.due = Some(1),
            "MIGRATE" if is("AUTH2") => self.due = Some(2),
            "CONFIG" | "SENTINEL" if is_secret_name(argument) => self.due = Some(1),
            _ => {}
        }
        false
    }
}

/// True for the names of settings that are passwords: `requirepass`, `masterauth`, `tls-key-file-pass`.
pub(super) fn is_secret_name(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    [&b"pass"[..], b"auth"].iter().any(|part| memchr::memmem::find(&name, part).is_some()) && !name.ends_with(b"user")
}

/// The first argument is a key, or a channel.
#[rustfmt::skip] // One word a line would be three screens.
const FIRST: &[&str] = &[
    "APPEND", "BF.ADD", "BF.EXISTS", "BF.INSERT", "BF.MADD", "BF.MEXISTS", "BF.RESERVE", "BITCOUNT", "BITFIELD",
    "BITFIELD_RO", "BITPOS", "BLMOVE", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZPOPMAX", "BZPOPMIN", "COPY", "DECR",
    "DECRBY", "DEL", "DELEX", "DIGEST", "DUMP", "EXISTS", "EXPIRE", "EXPIREAT", "EXPIRETIME", "FT.AGGREGATE",
    "FT.CREATE", "FT.INFO", "FT.SEARCH", "GEOADD", "GEODIST", "GEOHASH", "GEOPOS", "GEORADIUS", "GEORADIUSBYMEMBER",
    "GEORADIUSBYMEMBER_RO", "GEORADIUS_RO", "GEOSEARCH", "GEOSEARCHSTORE", "GET", "GETBIT", "GETDEL", "GETEX",
    "GETRANGE", "GETSET", "HDEL", "HEXISTS", "HEXPIRE", "HEXPIREAT", "HEXPIRETIME", "HGET", "HGETALL", "HGETDEL",
    "HGETEX", "HINCRBY", "HINCRBYFLOAT", "HKEYS", "HLEN", "HMGET", "HMSET", "HPERSIST", "HPEXPIRE", "HPEXPIREAT",
    "HPEXPIRETIME", "HPTTL", "HRANDFIELD", "HSCAN", "HSET", "HSETEX", "HSETNX", "HSTRLEN", "HTTL", "HVALS", "INCR",
    "INCRBY", "INCRBYFLOAT", "JSON.ARRAPPEND", "JSON.ARRINDEX", "JSON.ARRINSERT", "JSON.ARRLEN", "JSON.ARRPOP",
    "JSON.ARRTRIM", "JSON.CLEAR", "JSON.DEL", "JSON.FORGET", "JSON.GET", "JSON.MERGE", "JSON.MGET", "JSON.MSET",
    "JSON.NUMINCRBY", "JSON.NUMMULTBY", "JSON.OBJKEYS", "JSON.OBJLEN", "JSON.RESP", "JSON.SET", "JSON.STRAPPEND",
    "JSON.STRLEN", "JSON.TOGGLE", "JSON.TYPE", "LCS", "LINDEX", "LINSERT", "LLEN", "LMOVE", "LPOP", "LPOS", "LPUSH",
    "LPUSHX", "LRANGE", "LREM", "LSET", "LTRIM", "MGET", "MOVE", "MSET", "MSETNX", "PERSIST", "PEXPIRE", "PEXPIREAT",
    "PEXPIRETIME", "PFADD", "PFCOUNT", "PFMERGE", "PSETEX", "PTTL", "PUBLISH", "RENAME", "RENAMENX", "RESTORE",
    "RESTORE-ASKING", "RPOP", "RPOPLPUSH", "RPUSH", "RPUSHX", "SADD", "SCARD", "SDIFF", "SDIFFSTORE", "SET", "SETBIT",
    "SETEX", "SETNX", "SETRANGE", "SINTER", "SINTERSTORE", "SISMEMBER", "SMEMBERS", "SMISMEMBER", "SMOVE", "SORT",
    "SORT_RO", "SPOP", "SPUBLISH", "SRANDMEMBER", "SREM", "SSCAN", "STRLEN", "SUBSTR", "SUNION", "SUNIONSTORE",
    "TOUCH", "TS.ADD", "TS.CREATE", "TS.GET", "TS.RANGE", "TTL", "TYPE", "UNLINK", "VADD", "VCARD", "VDIM", "VEMB",
    "VGETATTR", "VINFO", "VISMEMBER", "VLINKS", "VRANDMEMBER", "VRANGE", "VREM", "VSETATTR", "VSIM", "WATCH", "XACK",
    "XACKDEL", "XADD", "XAUTOCLAIM", "XCFGSET", "XCLAIM", "XDEL", "XDELEX", "XLEN", "XPENDING", "XRANGE", "XREVRANGE",
    "XSETID", "XTRIM", "ZADD", "ZCARD", "ZCOUNT", "ZDIFFSTORE", "ZINCRBY", "ZINTERSTORE", "ZLEXCOUNT", "ZMSCORE",
    "ZPOPMAX", "ZPOPMIN", "ZRANDMEMBER", "ZRANGE", "ZRANGEBYLEX", "ZRANGEBYSCORE", "ZRANGESTORE", "ZRANK", "ZREM",
    "ZREMRANGEBYLEX", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE", "ZREVRANGE", "ZREVRANGEBYLEX", "ZREVRANGEBYSCORE",
    "ZREVRANK", "ZSCAN", "ZSCORE", "ZUNIONSTORE",
];

/// No argument is a key.
#[rustfmt::skip] // One word a line would be three screens.
const KEYLESS: &[&str] = &[
    "ASKING", "AUTH", "BGREWRITEAOF", "BGSAVE", "CLUSTER", "COMMAND", "DBSIZE", "DEBUG", "DISCARD", "ECHO", "EXEC",
    "FAILOVER", "FLUSHALL", "FLUSHDB", "FUNCTION", "HELLO", "HOTKEYS", "INFO", "KEYS", "LASTSAVE", "LATENCY",
    "LOLWUT", "MODULE", "MULTI", "PFSELFTEST", "PING", "PUBSUB", "QUIT", "RANDOMKEY", "READONLY", "READWRITE",
    "REPLICAOF", "ROLE", "SAVE", "SCAN", "SCRIPT", "SELECT", "SENTINEL", "SHUTDOWN", "SLAVEOF", "SLOWLOG", "SWAPDB",
    "TIME", "UNWATCH", "WAIT", "WAITAOF",
];

/// The others.
const OTHERS: &[(&str, Key, Effect)] = &[
    ("ACL", Key::None, Effect::Acl),
    ("BITOP", Key::At(2), Effect::None),
    ("BLMPOP", Key::Counted(2), Effect::None),
    ("BZMPOP", Key::Counted(2), Effect::None),
    ("CLIENT", Key::None, Effect::Client),
    ("CONFIG", Key::None, Effect::Config),
    ("EVAL", Key::Counted(2), Effect::None),
    ("EVALSHA", Key::Counted(2), Effect::None),
    ("EVALSHA_RO", Key::Counted(2), Effect::None),
    ("EVAL_RO", Key::Counted(2), Effect::None),
    ("FCALL", Key::Counted(2), Effect::None),
    ("FCALL_RO", Key::Counted(2), Effect::None),
    ("LMPOP", Key::Counted(1), Effect::None),
    ("MEMORY", Key::Of("USAGE"), Effect::None),
    ("MIGRATE", Key::Migrate, Effect::None),
    ("MONITOR", Key::None, Effect::Monitor),
    ("MSETEX", Key::Counted(1), Effect::None),
    ("OBJECT", Key::At(2), Effect::None),
    ("PFDEBUG", Key::At(2), Effect::None),
    ("PSUBSCRIBE", Key::At(1), Effect::Confirmed("PSUBSCRIBE")),
    ("PSYNC", Key::None, Effect::Sync),
    ("PUNSUBSCRIBE", Key::At(1), Effect::Confirmed("PUNSUBSCRIBE")),
    ("REPLCONF", Key::None, Effect::Replconf),
    ("RESET", Key::None, Effect::Reset),
    ("SINTERCARD", Key::Counted(1), Effect::None),
    ("SSUBSCRIBE", Key::At(1), Effect::Confirmed("SSUBSCRIBE")),
    ("SUBSCRIBE", Key::At(1), Effect::Confirmed("SUBSCRIBE")),
    ("SUNSUBSCRIBE", Key::At(1), Effect::Confirmed("SUNSUBSCRIBE")),
    ("SYNC", Key::None, Effect::Sync),
    ("UNSUBSCRIBE", Key::At(1), Effect::Confirmed("UNSUBSCRIBE")),
    ("XGROUP", Key::At(2), Effect::None),
    ("XINFO", Key::At(2), Effect::None),
    ("XREAD", Key::After("STREAMS"), Effect::None),
    ("XREADGROUP", Key::After("STREAMS"), Effect::None),
    ("ZDIFF", Key::Counted(1), Effect::None),
    ("ZINTER", Key::Counted(1), Effect::None),
    ("ZINTERCARD", Key::Counted(1), Effect::None),
    ("ZMPOP", Key::Counted(1), Effect::None),
    ("ZUNION", Key::Counted(1), Effect::None),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]
mod tests {
    use super::*;

    /// The first key of a command, as words.
    fn key(command: &str) -> Option<&str> {
        let mut words = command.split(' ').enumerate();
        let mut key = find(words.next().unwrap().1.as_bytes()).unwrap().key;
        words.find(|(position, word)| key.meet(*position, word.as_bytes())).map(|(_, word)| word)
    }

    #[test]
    fn the_tables_are_sorted() {
        assert!(FIRST.is_sorted() && KEYLESS.is_sorted() && OTHERS.is_sorted_by_key(|(name, ..)| name));
        assert!(FIRST.iter().chain(KEYLESS).all(|name| name.len() <= MAX_WORD));
    }

    #[test]
    fn keys_are_found_by_each_rule() {
        assert_eq!(key("get a"), Some("a"));
        assert_eq!(key("PING a"), None);
        assert_eq!(key("EVAL return1 2 k1 k2"), Some("k1"));
        assert_eq!(key("EVAL return1 0 a"), None);
        assert_eq!(key("XREAD COUNT 2 BLOCK 5 streams s t 0 0"), Some("s"));
        assert_eq!(key("XREADGROUP GROUP g c STREAMS s >"), Some("s"));
        assert_eq!(key("ZUNIONSTORE d 2 a b"), Some("d"));
        assert_eq!(key("ZUNION 2 a b"), Some("a"));
        assert_eq!(key("BLMPOP 1.5 1 l LEFT"), Some("l"));
        assert_eq!(key("MEMORY USAGE k"), Some("k"));
        assert_eq!(key("MEMORY DOCTOR"), None);
        assert_eq!(key("OBJECT ENCODING k"), Some("k"));
        assert_eq!(key("MIGRATE h 1 k 0 5"), Some("k"));
        assert_eq!(key("MIGRATE h 1  0 5 KEYS k l"), Some("k"));
        assert_eq!(key("BITOP AND d a"), Some("d"));
    }

    #[test]
    fn secrets_are_found() {
        let hidden = |command: &str| -> Vec<bool> {
            let words: Vec<_> = command.split(' ').collect();
            let mut secrets = Secrets::default();
            let count = words.len() as u64;
            (1..words.len()).map(|at| secrets.meet(words[0], at, count, words[at].as_bytes())).collect()
        };
        assert_eq!(hidden("AUTH p"), [true]);
        assert_eq!(hidden("AUTH u p"), [false, true]);
        assert_eq!(hidden("HELLO 3 AUTH u p SETNAME n"), [false, false, false, true, false, false]);
        assert_eq!(hidden("CONFIG SET maxmemory 1 requirepass p"), [false, false, false, false, true]);
        assert_eq!(hidden("ACL SETUSER u on >p ~*"), [false, false, false, true, false]);
        assert_eq!(hidden("MIGRATE h 1 k 0 5 AUTH2 u p"), [false, false, false, false, false, false, false, true]);
    }
}
