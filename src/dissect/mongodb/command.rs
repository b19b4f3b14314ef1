//! The commands: what each is about, as its first field tells.

use super::walk::{Element, Facts, kind};
use crate::dissect::{Cursor, text};
use crate::entry::Text;

/// The longest name that a row shows.
const MAX_NAME: usize = 1024;
/// Room for the name of a database.
const USUAL_NAME: usize = 24;
/// How much of a document with a command in it is looked at.
const MAX_NESTED: usize = 4096;

/// What the value of a command's first field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A collection, if it is a string.
    Collection,
    /// A collection with its database.
    Namespace,
    /// Anything else: a user, a parameter, a one.
    Other,
    /// A cursor; the field `collection` names its collection.
    Cursor,
    /// Another command.
    Nested,
}

/// A request's command.
#[derive(Debug, Default)]
pub(super) struct Command {
    pub name: Text,
    rule: Option<Rule>,
    /// Database and collection, or what is known of them.
    target: String,
    has_database: bool,
    has_collection: bool,
}

impl Command {
    /// In that database, as far as known before the document.
    pub(super) fn new(database: &[u8], name: &[u8]) -> Self {
        let mut command = Self::default();
        command.database(database);
        if !name.is_empty() {
            command.name(name);
        }
        command
    }

    fn name(&mut self, name: &[u8]) {
        if let Some((name, rule)) = find(name) {
            (self.name, self.rule) = (Text::Borrowed(name), Some(rule));
            return;
        }
        // What servers of a cluster tell each other has names that start so.
        let rule = if name.starts_with(b"_") { Rule::Namespace } else { Rule::Collection };
        self.name = Text::Owned(text::string(name.get(..MAX_NAME).unwrap_or(name)));
        self.rule = Some(rule);
    }

    /// The first field, of a command or of one within another.
    fn first(&mut self, element: &Element<'_>, value: &[u8], rule: Rule) {
        match (rule, element.kind) {
            (Rule::Collection, kind::STRING) => self.collection(string(value)),
            (Rule::Namespace, kind::STRING) => {
                self.target = text::string(string(value));
                (self.has_database, self.has_collection) = (true, true);
            }
            (Rule::Nested, kind::DOCUMENT) => {
                if let Some((element, value)) = first(value) {
                    let rule = find(element.name).map_or(Rule::Collection, |(_, rule)| rule);
                    if rule != Rule::Nested {
                        self.first(&element, value, rule);
                    }
                }
            }
            _ => {}
        }
    }

    fn database(&mut self, name: &[u8]) {
        if std::mem::replace(&mut self.has_database, true) || name.is_empty() {
            return;
        }
        if self.has_collection {
            self.target.insert(0, '.');
        }
        self.target.insert_str(0, &text::printable(name));
    }

    fn collection(&mut self, name: &[u8]) {
        if std::mem::replace(&mut self.has_collection, true) || name.is_empty() {
            return;
        }
        // The database's name is put before it later.
        self.target.reserve(name.len() + USUAL_NAME);
        if self.has_database && !self.target.is_empty() {
            self.target.push('.');
        }
        self.target.push_str(&text::printable(name));
    }

    /// What the row says: operation and target.
    pub(super) fn row(self) -> (Text, String) {
        (self.name, self.target)
    }
}

impl Facts for Command {
    fn wants(&self, first: bool, element: &Element<'_>) -> Option<usize> {
        match (element.kind, element.name) {
            (kind::DOCUMENT, _) if first => Some(MAX_NESTED),
            _ if first => Some(MAX_NAME + 5),
            (kind::STRING, b"$db") => Some(MAX_NAME + 5),
            (kind::STRING, b"collection") if self.rule == Some(Rule::Cursor) => Some(MAX_NAME + 5),
            _ => None,
        }
    }

    fn take(&mut self, first: bool, element: &Element<'_>, value: &[u8]) {
        match element.name {
            b"$db" => self.database(string(value)),
            // Drivers wrap a command to send options along.
            b"$query" | b"query" if first && element.kind == kind::DOCUMENT && self.name.is_empty() => {
                if let Some((element, value)) = self::first(value) {
                    self.take(true, &element, value);
                }
            }
            name if first && (self.name.is_empty() || self.name.as_bytes() == name) => {
                self.name(name);
                self.first(element, value, self.rule.unwrap_or(Rule::Other));
            }
            b"collection" if !first => self.collection(string(value)),
            _ => {}
        }
    }
}

/// The first field of a document, and as much of its value as is there.
fn first(document: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let mut cursor = Cursor::new(document);
    cursor.skip(4).ok()?;
    let element = Element::read(&mut cursor).ok()??;
    Some((element, cursor.rest().get(..element.size).unwrap_or(cursor.rest())))
}

/// A string value, which may be cut.
fn string(value: &[u8]) -> &[u8] {
    let bytes = value.get(4..).unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    bytes.get(..MAX_NAME).unwrap_or(bytes)
}

/// A command's name and rule.
fn find(name: &[u8]) -> Option<(&'static str, Rule)> {
    let at = COMMANDS.binary_search_by_key(&name, |(name, _)| name.as_bytes()).ok()?;
    COMMANDS.get(at).copied()
}

/// Commands that are often seen, and those whose first field is not a collection though it may be a string. Sorted.
#[rustfmt::skip]
static COMMANDS: &[(&str, Rule)] = {
    use Rule::{Collection as C, Cursor, Namespace as N, Nested, Other as O};
    &[
        ("abortReshardCollection", N), ("abortTransaction", O), ("addShard", O), ("addShardToZone", O), ("aggregate", C),
        ("analyze", C), ("analyzeShardKey", N), ("authenticate", O), ("balancerCollectionStatus", N), ("balancerStart", O),
        ("balancerStatus", O), ("balancerStop", O), ("buildInfo", O), ("buildinfo", O), ("bulkWrite", O),
        ("checkShardingIndex", N), ("cleanupOrphaned", N), ("cleanupReshardCollection", N), ("clearJumboFlag", N),
        ("cloneCollection", N), ("cloneCollectionAsCapped", C), ("collMod", C), ("collStats", C), ("collstats", C),
        ("commitReshardCollection", N), ("commitTransaction", O), ("compact", C), ("configureFailPoint", O),
        ("configureQueryAnalyzer", N), ("connPoolStats", O), ("connectionStatus", O), ("convertToCapped", C), ("copydb", O),
        ("count", C), ("create", C), ("createIndexes", C), ("createRole", O), ("createSearchIndexes", C), ("createUser", O),
        ("currentOp", O), ("dataSize", N), ("datasize", N), ("dbHash", O), ("dbStats", O), ("dbstats", O), ("delete", C),
        ("deleteIndexes", C), ("distinct", C), ("drop", C), ("dropAllRolesFromDatabase", O), ("dropAllUsersFromDatabase", O),
        ("dropConnections", O), ("dropDatabase", O), ("dropIndexes", C), ("dropRole", O), ("dropSearchIndex", C),
        ("dropUser", O), ("enableSharding", O), ("endSessions", O), ("eval", O), ("explain", Nested), ("filemd5", O),
        ("find", C), ("findAndModify", C), ("findandmodify", C), ("flushRouterConfig", N), ("fsync", O), ("fsyncUnlock", O),
        ("geoNear", C), ("geoSearch", C), ("getClusterParameter", O), ("getCmdLineOpts", O), ("getDefaultRWConcern", O),
        ("getLastError", O), ("getLog", O), ("getMore", Cursor), ("getParameter", O), ("getShardMap", O),
        ("getShardVersion", N), ("getlasterror", O), ("getnonce", O), ("grantPrivilegesToRole", O), ("grantRolesToRole", O),
        ("grantRolesToUser", O), ("hello", O), ("hostInfo", O), ("insert", C), ("invalidateUserCache", O), ("isMaster", O),
        ("isdbgrid", O), ("ismaster", O), ("killAllSessions", O), ("killAllSessionsByPattern", O), ("killCursors", C),
        ("killOp", O), ("killSessions", O), ("listCollections", O), ("listCommands", O), ("listDatabases", O),
        ("listIndexes", C), ("listShards", O), ("logRotate", O), ("logout", O), ("mapReduce", C), ("mapreduce", C),
        ("mergeAllChunksOnShard", N), ("mergeChunks", N), ("moveChunk", N), ("moveCollection", N), ("movePrimary", O),
        ("moveRange", N), ("parallelCollectionScan", C), ("ping", O), ("planCacheClear", C), ("planCacheClearFilters", C),
        ("planCacheListFilters", C), ("planCacheSetFilter", C), ("profile", O), ("reIndex", C),
        ("refineCollectionShardKey", N), ("refreshSessions", O), ("removeShard", O), ("removeShardFromZone", O),
        ("renameCollection", N), ("replSetGetConfig", O), ("replSetGetStatus", O), ("replSetHeartbeat", O),
        ("replSetInitiate", O), ("replSetReconfig", O), ("replSetRequestVotes", O), ("replSetStepDown", O),
        ("replSetSyncFrom", O), ("replSetUpdatePosition", O), ("reshardCollection", N), ("revokePrivilegesFromRole", O),
        ("revokeRolesFromRole", O), ("revokeRolesFromUser", O), ("rolesInfo", O), ("saslContinue", O), ("saslStart", O),
        ("serverStatus", O), ("setClusterParameter", O), ("setDefaultRWConcern", O), ("setFeatureCompatibilityVersion", O),
        ("setIndexCommitQuorum", C), ("setParameter", O), ("setShardVersion", N), ("shardCollection", N), ("shutdown", O),
        ("split", N), ("splitChunk", N), ("splitVector", N), ("startSession", O), ("top", O), ("touch", C),
        ("unsetSharding", O), ("unshardCollection", N), ("update", C), ("updateRole", O), ("updateSearchIndex", C),
        ("updateUser", O), ("updateZoneKeyRange", N), ("usersInfo", O), ("validate", C), ("validateDBMetadata", O),
        ("waitForFailPoint", O), ("whatsmyuri", O),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_sorted() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.0 < b.0));
    }

    fn target(name: &[u8], kind: u8, value: &[u8]) -> String {
        let mut command = Command::new(b"shop", b"");
        command.take(true, &Element { kind, name, size: value.len() }, value);
        command.row().1
    }

    #[test]
    fn the_database_may_come_last() {
        let mut command = Command::default();
        command.take(true, &Element { kind: kind::INT64, name: b"getMore", size: 8 }, &[7; 8]);
        let (collection, database) = (&b"\x06\0\0\0carts\0"[..], &b"\x05\0\0\0shop\0"[..]);
        command.take(false, &Element { kind: kind::STRING, name: b"collection", size: 10 }, collection);
        command.take(false, &Element { kind: kind::STRING, name: b"$db", size: 9 }, database);
        assert_eq!(command.row(), ("getMore".into(), "shop.carts".into()));
    }

    #[test]
    fn the_first_field_names_the_collection_for_most() {
        assert_eq!(target(b"find", kind::STRING, b"\x06\0\0\0carts\0"), "shop.carts");
        assert_eq!(target(b"ping", kind::INT32, b"\x01\0\0\0"), "shop");
        assert_eq!(target(b"aggregate", kind::INT32, b"\x01\0\0\0"), "shop");
        assert_eq!(target(b"dropUser", kind::STRING, b"\x04\0\0\0bob\0"), "shop");
        assert_eq!(target(b"renameCollection", kind::STRING, b"\x04\0\0\0a.b\0"), "a.b");
        assert_eq!(target(b"somethingNew", kind::STRING, b"\x02\0\0\0c\0"), "shop.c");
        assert_eq!(target(b"_shardsvrX", kind::STRING, b"\x04\0\0\0a.b\0"), "a.b");
        let inner = b"\x13\0\0\0\x02find\0\x06\0\0\0carts\0\0";
        assert_eq!(target(b"explain", kind::DOCUMENT, inner), "shop.carts");
        assert_eq!(target(b"$query", kind::DOCUMENT, inner), "shop.carts");
    }
}
