//! Every API of Kafka, from its first version to those of Kafka 4.4, by what they are about.

mod broker;
mod config;
mod controller;
mod group;
mod log;
mod metadata;
mod offset;
mod raft;
mod rebalance;
mod security;
mod share;
mod share_state;
mod topic;
mod transaction;

use super::schema::Api;

/// Its first version has no client id in its header.
pub(super) const CONTROLLED_SHUTDOWN: i16 = 7;
/// After its version 0, tokens follow that have no header.
pub(super) const SASL_HANDSHAKE: i16 = 17;
/// Its responses tell which versions there are, so their header is the same in all of them.
pub(super) const API_VERSIONS: i16 = 18;

/// By key.
#[rustfmt::skip]
static APIS: &[&Api] = &[
    &log::PRODUCE,
    &log::FETCH,
    &log::LIST_OFFSETS,
    &metadata::METADATA,
    &controller::LEADER_AND_ISR,
    &controller::STOP_REPLICA,
    &controller::UPDATE_METADATA,
    &controller::CONTROLLED_SHUTDOWN,
    &offset::OFFSET_COMMIT,
    &offset::OFFSET_FETCH,
    &group::FIND_COORDINATOR,
    &group::JOIN_GROUP,
    &group::HEARTBEAT,
    &group::LEAVE_GROUP,
    &group::SYNC_GROUP,
    &group::DESCRIBE_GROUPS,
    &group::LIST_GROUPS,
    &security::SASL_HANDSHAKE,
    &metadata::API_VERSIONS,
    &topic::CREATE_TOPICS,
    &topic::DELETE_TOPICS,
    &log::DELETE_RECORDS,
    &transaction::INIT_PRODUCER_ID,
    &log::OFFSET_FOR_LEADER_EPOCH,
    &transaction::ADD_PARTITIONS_TO_TXN,
    &transaction::ADD_OFFSETS_TO_TXN,
    &transaction::END_TXN,
    &transaction::WRITE_TXN_MARKERS,
    &transaction::TXN_OFFSET_COMMIT,
    &security::DESCRIBE_ACLS,
    &security::CREATE_ACLS,
    &security::DELETE_ACLS,
    &config::DESCRIBE_CONFIGS,
    &config::ALTER_CONFIGS,
    &topic::ALTER_REPLICA_LOG_DIRS,
    &topic::DESCRIBE_LOG_DIRS,
    &security::SASL_AUTHENTICATE,
    &topic::CREATE_PARTITIONS,
    &security::CREATE_DELEGATION_TOKEN,
    &security::RENEW_DELEGATION_TOKEN,
    &security::EXPIRE_DELEGATION_TOKEN,
    &security::DESCRIBE_DELEGATION_TOKEN,
    &group::DELETE_GROUPS,
    &topic::ELECT_LEADERS,
    &config::INCREMENTAL_ALTER_CONFIGS,
    &topic::ALTER_PARTITION_REASSIGNMENTS,
    &topic::LIST_PARTITION_REASSIGNMENTS,
    &offset::OFFSET_DELETE,
    &config::DESCRIBE_CLIENT_QUOTAS,
    &config::ALTER_CLIENT_QUOTAS,
    &security::DESCRIBE_USER_SCRAM_CREDENTIALS,
    &security::ALTER_USER_SCRAM_CREDENTIALS,
    &raft::VOTE,
    &raft::BEGIN_QUORUM_EPOCH,
    &raft::END_QUORUM_EPOCH,
    &raft::DESCRIBE_QUORUM,
    &broker::ALTER_PARTITION,
    &metadata::UPDATE_FEATURES,
    &broker::ENVELOPE,
    &raft::FETCH_SNAPSHOT,
    &metadata::DESCRIBE_CLUSTER,
    &transaction::DESCRIBE_PRODUCERS,
    &broker::BROKER_REGISTRATION,
    &broker::BROKER_HEARTBEAT,
    &broker::UNREGISTER_BROKER,
    &transaction::DESCRIBE_TRANSACTIONS,
    &transaction::LIST_TRANSACTIONS,
    &broker::ALLOCATE_PRODUCER_IDS,
    &rebalance::CONSUMER_GROUP_HEARTBEAT,
    &rebalance::CONSUMER_GROUP_DESCRIBE,
    &broker::CONTROLLER_REGISTRATION,
    &metadata::GET_TELEMETRY_SUBSCRIPTIONS,
    &metadata::PUSH_TELEMETRY,
    &broker::ASSIGN_REPLICAS_TO_DIRS,
    &config::LIST_CONFIG_RESOURCES,
    &metadata::DESCRIBE_TOPIC_PARTITIONS,
    &share::SHARE_GROUP_HEARTBEAT,
    &share::SHARE_GROUP_DESCRIBE,
    &share::SHARE_FETCH,
    &share::SHARE_ACKNOWLEDGE,
    &raft::ADD_RAFT_VOTER,
    &raft::REMOVE_RAFT_VOTER,
    &raft::UPDATE_RAFT_VOTER,
    &share_state::INITIALIZE_SHARE_GROUP_STATE,
    &share_state::READ_SHARE_GROUP_STATE,
    &share_state::WRITE_SHARE_GROUP_STATE,
    &share_state::DELETE_SHARE_GROUP_STATE,
    &share_state::READ_SHARE_GROUP_STATE_SUMMARY,
    &rebalance::STREAMS_GROUP_HEARTBEAT,
    &rebalance::STREAMS_GROUP_DESCRIBE,
    &share::DESCRIBE_SHARE_GROUP_OFFSETS,
    &share::ALTER_SHARE_GROUP_OFFSETS,
    &share::DELETE_SHARE_GROUP_OFFSETS,
    &rebalance::STREAMS_GROUP_TOPOLOGY_DESCRIPTION_UPDATE,
    &raft::UNREGISTER_CONTROLLER,
];

/// The API with that key.
pub(super) fn find(key: i16) -> Option<&'static Api> {
    APIS.get(usize::try_from(key).ok()?).copied().filter(|api| api.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dissect::kafka::schema::{Field, Kind, NEVER};

    #[test]
    fn keys_are_places() {
        for (place, api) in APIS.iter().enumerate() {
            assert_eq!(usize::try_from(api.key), Ok(place), "{}", api.name);
            assert!(api.versions.0 <= api.versions.1, "{}", api.name);
            assert!(api.flexible == NEVER || api.flexible <= api.versions.1, "{}", api.name);
        }
    }

    #[test]
    fn fields_are_sound() {
        fn check(api: &Api, fields: &[Field]) {
            for (place, field) in fields.iter().enumerate() {
                let used = (api.versions.0..=api.versions.1).any(|version| field.is_in(version));
                assert!(used, "{}: no version has {}", api.name, field.name);
                let untagged = field.tag.is_none() || (0..api.flexible).all(|version| !field.is_in(version));
                assert!(untagged, "{}: {} is tagged before tags were", api.name, field.name);
                for other in fields.iter().skip(place + 1) {
                    let both =
                        (api.versions.0..=api.versions.1).any(|version| field.is_in(version) && other.is_in(version));
                    assert!(!both || field.name != other.name, "{}: {} twice", api.name, field.name);
                    assert!(!both || field.tag.is_none() || field.tag != other.tag, "{}: {}", api.name, field.name);
                }
                if let Kind::Struct(fields) = field.kind {
                    assert!(!fields.is_empty(), "{}: {} is empty", api.name, field.name);
                    check(api, fields);
                }
            }
        }
        for api in APIS {
            check(api, api.request);
            check(api, api.response);
        }
    }
}
