//! The metadata quorum (KRaft).

use crate::dissect::kafka::schema::{
    Api, Field, boolean, error, int16, int32, int64, list, one, records, text, topic, uint16, uuid,
};

/// What is answered when an epoch begins, and when it ends.
const LEADERS: &[Field] = &[
    error("error_code"),
    list("topics").of(&[
        topic("topic_name"),
        list("partitions").of(&[
            int32("partition_index"),
            error("error_code"),
            int32("leader_id"),
            int32("leader_epoch"),
        ]),
    ]),
    list("node_endpoints").since(1).tag(0).of(&[int32("node_id"), text("host"), uint16("port")]),
];

pub(super) static VOTE: Api = Api {
    key: 52,
    name: "Vote",
    versions: (0, 2),
    flexible: 0,
    request: &[
        text("cluster_id"),
        int32("voter_id").since(1),
        list("topics").of(&[
            topic("topic_name"),
            list("partitions").of(&[
                int32("partition_index"),
                int32("replica_epoch"),
                int32("replica_id"),
                uuid("replica_directory_id").since(1),
                uuid("voter_directory_id").since(1),
                int32("last_offset_epoch"),
                int64("last_offset"),
                boolean("pre_vote").since(2),
            ]),
        ]),
    ],
    response: &[
        error("error_code"),
        list("topics").of(&[
            topic("topic_name"),
            list("partitions").of(&[
                int32("partition_index"),
                error("error_code"),
                int32("leader_id"),
                int32("leader_epoch"),
                boolean("vote_granted"),
            ]),
        ]),
        list("node_endpoints").since(1).tag(0).of(&[int32("node_id"), text("host"), uint16("port")]),
    ],
};

pub(super) static BEGIN_QUORUM_EPOCH: Api = Api {
    key: 53,
    name: "BeginQuorumEpoch",
    versions: (0, 1),
    flexible: 1,
    request: &[
        text("cluster_id"),
        int32("voter_id").since(1),
        list("topics").of(&[
            topic("topic_name"),
            list("partitions").of(&[
                int32("partition_index"),
                uuid("voter_directory_id").since(1),
                int32("leader_id"),
                int32("leader_epoch"),
            ]),
        ]),
        list("leader_endpoints").since(1).of(&[text("name"), text("host"), uint16("port")]),
    ],
    response: LEADERS,
};

pub(super) static END_QUORUM_EPOCH: Api = Api {
    key: 54,
    name: "EndQuorumEpoch",
    versions: (0, 1),
    flexible: 1,
    request: &[
        text("cluster_id"),
        list("topics").of(&[
            topic("topic_name"),
            list("partitions").of(&[
                int32("partition_index"),
                int32("leader_id"),
                int32("leader_epoch"),
                int32("preferred_successors").many().until(0),
                list("preferred_candidates").since(1).of(&[int32("candidate_id"), uuid("candidate_directory_id")]),
            ]),
        ]),
        list("leader_endpoints").since(1).of(&[text("name"), text("host"), uint16("port")]),
    ],
    response: LEADERS,
};

pub(super) static DESCRIBE_QUORUM: Api = Api {
    key: 55,
    name: "DescribeQuorum",
    versions: (0, 2),
    flexible: 0,
    request: &[list("topics").of(&[topic("topic_name"), list("partitions").of(&[int32("partition_index")])])],
    response: &[
        error("error_code"),
        text("error_message").since(2),
        list("topics").of(&[
            topic("topic_name"),
            list("partitions").of(&[
                int32("partition_index"),
                error("error_code"),
                text("error_message").since(2),
                int32("leader_id"),
                int32("leader_epoch"),
                int64("high_watermark"),
                list("current_voters").of(&[
                    int32("replica_id"),
                    uuid("replica_directory_id").since(2),
                    int64("log_end_offset"),
                    int64("last_fetch_timestamp").since(1),
                    int64("last_caught_up_timestamp").since(1),
                ]),
                list("observers").of(&[
                    int32("replica_id"),
                    uuid("replica_directory_id").since(2),
                    int64("log_end_offset"),
                    int64("last_fetch_timestamp").since(1),
                    int64("last_caught_up_timestamp").since(1),
                ]),
            ]),
        ]),
        list("nodes")
            .since(2)
            .of(&[int32("node_id"), list("listeners").of(&[text("name"), text("host"), uint16("port")])]),
    ],
};

pub(super) static FETCH_SNAPSHOT: Api = Api {
    key: 59,
    name: "FetchSnapshot",
    versions: (0, 1),
    flexible: 0,
    request: &[
        text("cluster_id").tag(0),
        int32("replica_id"),
        int32("max_bytes"),
        list("topics").of(&[
            topic("name"),
            list("partitions").of(&[
                int32("partition"),
                int32("current_leader_epoch"),
                one("snapshot_id").of(&[int64("end_offset"), int32("epoch")]),
                int64("position"),
                uuid("replica_directory_id").since(1).tag(0),
            ]),
        ]),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        list("topics").of(&[
            topic("name"),
            list("partitions").of(&[
                int32("index"),
                error("error_code"),
                one("snapshot_id").of(&[int64("end_offset"), int32("epoch")]),
                one("current_leader").tag(0).of(&[int32("leader_id"), int32("leader_epoch")]),
                int64("size"),
                int64("position"),
                records("unaligned_records"),
            ]),
        ]),
        list("node_endpoints").since(1).tag(0).of(&[int32("node_id"), text("host"), uint16("port")]),
    ],
};

pub(super) static ADD_RAFT_VOTER: Api = Api {
    key: 80,
    name: "AddRaftVoter",
    versions: (0, 1),
    flexible: 0,
    request: &[
        text("cluster_id"),
        int32("timeout_ms"),
        int32("voter_id"),
        uuid("voter_directory_id"),
        list("listeners").of(&[text("name"), text("host"), uint16("port")]),
        boolean("ack_when_committed").since(1),
    ],
    response: &[int32("throttle_time_ms"), error("error_code"), text("error_message")],
};

pub(super) static REMOVE_RAFT_VOTER: Api = Api {
    key: 81,
    name: "RemoveRaftVoter",
    versions: (0, 0),
    flexible: 0,
    request: &[text("cluster_id"), int32("voter_id"), uuid("voter_directory_id")],
    response: &[int32("throttle_time_ms"), error("error_code"), text("error_message")],
};

pub(super) static UPDATE_RAFT_VOTER: Api = Api {
    key: 82,
    name: "UpdateRaftVoter",
    versions: (0, 0),
    flexible: 0,
    request: &[
        text("cluster_id"),
        int32("current_leader_epoch"),
        int32("voter_id"),
        uuid("voter_directory_id"),
        list("listeners").of(&[text("name"), text("host"), uint16("port")]),
        one("k_raft_version_feature").of(&[int16("min_supported_version"), int16("max_supported_version")]),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        one("current_leader").tag(0).of(&[int32("leader_id"), int32("leader_epoch"), text("host"), int32("port")]),
    ],
};

pub(super) static UNREGISTER_CONTROLLER: Api = Api {
    key: 94,
    name: "UnregisterController",
    versions: (0, 0),
    flexible: 0,
    request: &[int32("controller_id")],
    response: &[int32("throttle_time_ms"), error("error_code"), text("error_message")],
};
