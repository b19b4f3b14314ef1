//! What a cluster is made of, what it speaks, and what it wants to know of its clients.

use crate::dissect::kafka::schema::{
    Api, boolean, bytes, error, int8, int16, int32, int64, list, one, text, topic, topic_id, uuid,
};

pub(super) static METADATA: Api = Api {
    key: 3,
    name: "Metadata",
    versions: (0, 13),
    flexible: 9,
    request: &[
        list("topics").of(&[topic_id("topic_id").since(10), topic("name")]),
        boolean("allow_auto_topic_creation").since(4),
        boolean("include_cluster_authorized_operations").since(8).until(10),
        boolean("include_topic_authorized_operations").since(8),
    ],
    response: &[
        int32("throttle_time_ms").since(3),
        list("brokers").of(&[int32("node_id"), text("host"), int32("port"), text("rack").since(1)]),
        text("cluster_id").since(2),
        int32("controller_id").since(1),
        list("topics").of(&[
            error("error_code"),
            topic("name"),
            topic_id("topic_id").since(10),
            boolean("is_internal").since(1),
            list("partitions").of(&[
                error("error_code"),
                int32("partition_index"),
                int32("leader_id"),
                int32("leader_epoch").since(7),
                int32("replica_nodes").many(),
                int32("isr_nodes").many(),
                int32("offline_replicas").many().since(5),
            ]),
            int32("topic_authorized_operations").since(8),
        ]),
        int32("cluster_authorized_operations").since(8).until(10),
        error("error_code").since(13),
    ],
};

pub(super) static API_VERSIONS: Api = Api {
    key: 18,
    name: "ApiVersions",
    versions: (0, 5),
    flexible: 3,
    request: &[
        text("client_software_name").since(3),
        text("client_software_version").since(3),
        text("cluster_id").since(5),
        int32("node_id").since(5),
    ],
    response: &[
        error("error_code"),
        list("api_keys").of(&[int16("api_key"), int16("min_version"), int16("max_version")]),
        int32("throttle_time_ms").since(1),
        list("supported_features").since(3).tag(0).of(&[text("name"), int16("min_version"), int16("max_version")]),
        int64("finalized_features_epoch").since(3).tag(1),
        list("finalized_features").since(3).tag(2).of(&[
            text("name"),
            int16("max_version_level"),
            int16("min_version_level"),
        ]),
        boolean("zk_migration_ready").since(3).tag(3),
    ],
};

pub(super) static UPDATE_FEATURES: Api = Api {
    key: 57,
    name: "UpdateFeatures",
    versions: (0, 2),
    flexible: 0,
    request: &[
        int32("timeout_ms"),
        list("feature_updates").of(&[
            text("feature"),
            int16("max_version_level"),
            boolean("allow_downgrade").until(0),
            int8("upgrade_type").since(1),
        ]),
        boolean("validate_only").since(1),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        list("results").until(1).of(&[text("feature"), error("error_code"), text("error_message")]),
    ],
};

pub(super) static DESCRIBE_CLUSTER: Api = Api {
    key: 60,
    name: "DescribeCluster",
    versions: (0, 2),
    flexible: 0,
    request: &[
        boolean("include_cluster_authorized_operations"),
        int8("endpoint_type").since(1),
        boolean("include_fenced_brokers").since(2),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        int8("endpoint_type").since(1),
        text("cluster_id"),
        int32("controller_id"),
        list("brokers").of(&[
            int32("broker_id"),
            text("host"),
            int32("port"),
            text("rack"),
            boolean("is_fenced").since(2),
        ]),
        int32("cluster_authorized_operations"),
    ],
};

pub(super) static GET_TELEMETRY_SUBSCRIPTIONS: Api = Api {
    key: 71,
    name: "GetTelemetrySubscriptions",
    versions: (0, 0),
    flexible: 0,
    request: &[uuid("client_instance_id")],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        uuid("client_instance_id"),
        int32("subscription_id"),
        int8("accepted_compression_types").many(),
        int32("push_interval_ms"),
        int32("telemetry_max_bytes"),
        boolean("delta_temporality"),
        text("requested_metrics").many(),
    ],
};

pub(super) static PUSH_TELEMETRY: Api = Api {
    key: 72,
    name: "PushTelemetry",
    versions: (0, 0),
    flexible: 0,
    request: &[
        uuid("client_instance_id"),
        int32("subscription_id"),
        boolean("terminating"),
        int8("compression_type"),
        bytes("metrics"),
    ],
    response: &[int32("throttle_time_ms"), error("error_code")],
};

pub(super) static DESCRIBE_TOPIC_PARTITIONS: Api = Api {
    key: 75,
    name: "DescribeTopicPartitions",
    versions: (0, 0),
    flexible: 0,
    request: &[
        list("topics").of(&[topic("name")]),
        int32("response_partition_limit"),
        one("cursor").nullable().of(&[topic("topic_name"), int32("partition_index")]),
    ],
    response: &[
        int32("throttle_time_ms"),
        list("topics").of(&[
            error("error_code"),
            topic("name"),
            topic_id("topic_id"),
            boolean("is_internal"),
            list("partitions").of(&[
                error("error_code"),
                int32("partition_index"),
                int32("leader_id"),
                int32("leader_epoch"),
                int32("replica_nodes").many(),
                int32("isr_nodes").many(),
                int32("eligible_leader_replicas").many(),
                int32("last_known_elr").many(),
                int32("offline_replicas").many(),
            ]),
            int32("topic_authorized_operations"),
        ]),
        one("next_cursor").nullable().of(&[topic("topic_name"), int32("partition_index")]),
    ],
};
