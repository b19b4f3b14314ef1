//! Brokers and their controller, with KRaft.

use crate::dissect::kafka::schema::{
    Api, boolean, bytes, error, int8, int16, int32, int64, list, text, topic, topic_id, uint16, uuid,
};

pub(super) static ALTER_PARTITION: Api = Api {
    key: 56,
    name: "AlterPartition",
    versions: (0, 3),
    flexible: 0,
    request: &[
        int32("broker_id"),
        int64("broker_epoch"),
        list("topics").of(&[
            topic("topic_name").until(1),
            topic_id("topic_id").since(2),
            list("partitions").of(&[
                int32("partition_index"),
                int32("leader_epoch"),
                int32("new_isr").many().until(2),
                list("new_isr_with_epochs").since(3).of(&[int32("broker_id"), int64("broker_epoch")]),
                int8("leader_recovery_state").since(1),
                int32("partition_epoch"),
            ]),
        ]),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        list("topics").of(&[
            topic("topic_name").until(1),
            topic_id("topic_id").since(2),
            list("partitions").of(&[
                int32("partition_index"),
                error("error_code"),
                int32("leader_id"),
                int32("leader_epoch"),
                int32("isr").many(),
                int8("leader_recovery_state").since(1),
                int32("partition_epoch"),
            ]),
        ]),
    ],
};

pub(super) static ENVELOPE: Api = Api {
    key: 58,
    name: "Envelope",
    versions: (0, 0),
    flexible: 0,
    request: &[bytes("request_data").secret(), bytes("request_principal"), bytes("client_host_address")],
    response: &[bytes("response_data"), error("error_code")],
};

pub(super) static BROKER_REGISTRATION: Api = Api {
    key: 62,
    name: "BrokerRegistration",
    versions: (0, 4),
    flexible: 0,
    request: &[
        int32("broker_id"),
        text("cluster_id"),
        uuid("incarnation_id"),
        list("listeners").of(&[text("name"), text("host"), uint16("port"), int16("security_protocol")]),
        list("features").of(&[text("name"), int16("min_supported_version"), int16("max_supported_version")]),
        text("rack"),
        boolean("is_migrating_zk_broker").since(1),
        uuid("log_dirs").many().since(2),
        int64("previous_broker_epoch").since(3),
    ],
    response: &[int32("throttle_time_ms"), error("error_code"), int64("broker_epoch")],
};

pub(super) static BROKER_HEARTBEAT: Api = Api {
    key: 63,
    name: "BrokerHeartbeat",
    versions: (0, 2),
    flexible: 0,
    request: &[
        int32("broker_id"),
        int64("broker_epoch"),
        int64("current_metadata_offset"),
        boolean("want_fence"),
        boolean("want_shut_down"),
        uuid("offline_log_dirs").many().since(1).tag(0),
        uuid("cordoned_log_dirs").many().since(2).tag(1),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        boolean("is_caught_up"),
        boolean("is_fenced"),
        boolean("should_shut_down"),
    ],
};

pub(super) static UNREGISTER_BROKER: Api = Api {
    key: 64,
    name: "UnregisterBroker",
    versions: (0, 0),
    flexible: 0,
    request: &[int32("broker_id")],
    response: &[int32("throttle_time_ms"), error("error_code"), text("error_message")],
};

pub(super) static ALLOCATE_PRODUCER_IDS: Api = Api {
    key: 67,
    name: "AllocateProducerIds",
    versions: (0, 0),
    flexible: 0,
    request: &[int32("broker_id"), int64("broker_epoch")],
    response: &[int32("throttle_time_ms"), error("error_code"), int64("producer_id_start"), int32("producer_id_len")],
};

pub(super) static CONTROLLER_REGISTRATION: Api = Api {
    key: 70,
    name: "ControllerRegistration",
    versions: (0, 0),
    flexible: 0,
    request: &[
        int32("controller_id"),
        uuid("incarnation_id"),
        boolean("zk_migration_ready"),
        list("listeners").of(&[text("name"), text("host"), uint16("port"), int16("security_protocol")]),
        list("features").of(&[text("name"), int16("min_supported_version"), int16("max_supported_version")]),
    ],
    response: &[int32("throttle_time_ms"), error("error_code"), text("error_message")],
};

pub(super) static ASSIGN_REPLICAS_TO_DIRS: Api = Api {
    key: 73,
    name: "AssignReplicasToDirs",
    versions: (0, 0),
    flexible: 0,
    request: &[
        int32("broker_id"),
        int64("broker_epoch"),
        list("directories").of(&[
            uuid("id"),
            list("topics").of(&[topic_id("topic_id"), list("partitions").of(&[int32("partition_index")])]),
        ]),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        list("directories").of(&[
            uuid("id"),
            list("topics")
                .of(&[topic_id("topic_id"), list("partitions").of(&[int32("partition_index"), error("error_code")])]),
        ]),
    ],
};
