//! The controller and its brokers before KRaft.

use crate::dissect::kafka::schema::{
    Api, Field, boolean, error, int8, int16, int32, int64, list, text, topic, topic_id,
};

/// A partition in `LeaderAndIsr`: of any topic, and later inside of its own.
const LED: &[Field] = &[
    topic("topic_name").until(1),
    int32("partition_index"),
    int32("controller_epoch"),
    int32("leader"),
    int32("leader_epoch"),
    int32("isr").many(),
    int32("partition_epoch"),
    int32("replicas").many(),
    int32("adding_replicas").many().since(3),
    int32("removing_replicas").many().since(3),
    boolean("is_new").since(1),
    int8("leader_recovery_state").since(6),
];

/// The same in `UpdateMetadata`.
const KNOWN: &[Field] = &[
    topic("topic_name").until(4),
    int32("partition_index"),
    int32("controller_epoch"),
    int32("leader"),
    int32("leader_epoch"),
    int32("isr").many(),
    int32("zk_version"),
    int32("replicas").many(),
    int32("offline_replicas").many().since(4),
];

pub(super) static LEADER_AND_ISR: Api = Api {
    key: 4,
    name: "LeaderAndIsr",
    versions: (0, 7),
    flexible: 4,
    request: &[
        int32("controller_id"),
        boolean("is_k_raft_controller").since(7),
        int32("controller_epoch"),
        int64("broker_epoch").since(2),
        int8("type").since(5),
        list("ungrouped_partition_states").until(1).of(LED),
        list("topic_states").since(2).of(&[
            topic("topic_name"),
            topic_id("topic_id").since(5),
            list("partition_states").of(LED),
        ]),
        list("live_leaders").of(&[int32("broker_id"), text("host_name"), int32("port")]),
    ],
    response: &[
        error("error_code"),
        list("partition_errors").until(4).of(&[topic("topic_name"), int32("partition_index"), error("error_code")]),
        list("topics").since(5).of(&[
            topic_id("topic_id"),
            list("partition_errors").of(&[topic("topic_name").until(4), int32("partition_index"), error("error_code")]),
        ]),
    ],
};

pub(super) static STOP_REPLICA: Api = Api {
    key: 5,
    name: "StopReplica",
    versions: (0, 4),
    flexible: 2,
    request: &[
        int32("controller_id"),
        boolean("is_k_raft_controller").since(4),
        int32("controller_epoch"),
        int64("broker_epoch").since(1),
        boolean("delete_partitions").until(2),
        list("ungrouped_partitions").until(0).of(&[topic("topic_name"), int32("partition_index")]),
        list("topics").since(1).until(2).of(&[topic("name"), int32("partition_indexes").many()]),
        list("topic_states").since(3).of(&[
            topic("topic_name"),
            list("partition_states").of(&[
                int32("partition_index"),
                int32("leader_epoch"),
                boolean("delete_partition"),
            ]),
        ]),
    ],
    response: &[
        error("error_code"),
        list("partition_errors").of(&[topic("topic_name"), int32("partition_index"), error("error_code")]),
    ],
};

pub(super) static UPDATE_METADATA: Api = Api {
    key: 6,
    name: "UpdateMetadata",
    versions: (0, 8),
    flexible: 6,
    request: &[
        int32("controller_id"),
        boolean("is_k_raft_controller").since(8),
        int8("type").since(8).tag(0),
        int32("controller_epoch"),
        int64("broker_epoch").since(5),
        list("ungrouped_partition_states").until(4).of(KNOWN),
        list("topic_states").since(5).of(&[
            topic("topic_name"),
            topic_id("topic_id").since(7),
            list("partition_states").of(KNOWN),
        ]),
        list("live_brokers").of(&[
            int32("id"),
            text("v0_host").until(0),
            int32("v0_port").until(0),
            list("endpoints").since(1).of(&[
                int32("port"),
                text("host"),
                text("listener").since(3),
                int16("security_protocol"),
            ]),
            text("rack").since(2),
        ]),
    ],
    response: &[error("error_code")],
};

pub(super) static CONTROLLED_SHUTDOWN: Api = Api {
    key: 7,
    name: "ControlledShutdown",
    versions: (0, 3),
    flexible: 3,
    request: &[int32("broker_id"), int64("broker_epoch").since(2)],
    response: &[error("error_code"), list("remaining_partitions").of(&[topic("topic_name"), int32("partition_index")])],
};
