//! Topics and where their partitions live.

use crate::dissect::kafka::schema::{Api, boolean, error, int8, int16, int32, int64, list, text, topic, topic_id};

pub(super) static CREATE_TOPICS: Api = Api {
    key: 19,
    name: "CreateTopics",
    versions: (0, 7),
    flexible: 5,
    request: &[
        list("topics").of(&[
            topic("name"),
            int32("num_partitions"),
            int16("replication_factor"),
            list("assignments").of(&[int32("partition_index"), int32("broker_ids").many()]),
            list("configs").of(&[text("name"), text("value")]),
        ]),
        int32("timeout_ms"),
        boolean("validate_only").since(1),
    ],
    response: &[
        int32("throttle_time_ms").since(2),
        list("topics").of(&[
            topic("name"),
            topic_id("topic_id").since(7),
            error("error_code"),
            text("error_message").since(1),
            int16("topic_config_error_code").since(5).tag(0),
            int32("num_partitions").since(5),
            int16("replication_factor").since(5),
            list("configs").since(5).of(&[
                text("name"),
                text("value"),
                boolean("read_only"),
                int8("config_source"),
                boolean("is_sensitive"),
            ]),
        ]),
    ],
};

pub(super) static DELETE_TOPICS: Api = Api {
    key: 20,
    name: "DeleteTopics",
    versions: (0, 6),
    flexible: 4,
    request: &[
        list("topics").since(6).of(&[topic("name"), topic_id("topic_id")]),
        topic("topic_names").many().until(5),
        int32("timeout_ms"),
    ],
    response: &[
        int32("throttle_time_ms").since(1),
        list("responses").of(&[
            topic("name"),
            topic_id("topic_id").since(6),
            error("error_code"),
            text("error_message").since(5),
        ]),
    ],
};

pub(super) static CREATE_PARTITIONS: Api = Api {
    key: 37,
    name: "CreatePartitions",
    versions: (0, 3),
    flexible: 2,
    request: &[
        list("topics").of(&[
            topic("name"),
            int32("count"),
            list("assignments").nullable().of(&[int32("broker_ids").many()]),
        ]),
        int32("timeout_ms"),
        boolean("validate_only"),
    ],
    response: &[
        int32("throttle_time_ms"),
        list("results").of(&[topic("name"), error("error_code"), text("error_message")]),
    ],
};

pub(super) static ELECT_LEADERS: Api = Api {
    key: 43,
    name: "ElectLeaders",
    versions: (0, 2),
    flexible: 2,
    request: &[
        int8("election_type").since(1),
        list("topic_partitions").of(&[topic("topic"), int32("partitions").many()]),
        int32("timeout_ms"),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code").since(1),
        list("replica_election_results").of(&[
            topic("topic"),
            list("partition_result").of(&[int32("partition_id"), error("error_code"), text("error_message")]),
        ]),
    ],
};

pub(super) static ALTER_PARTITION_REASSIGNMENTS: Api = Api {
    key: 45,
    name: "AlterPartitionReassignments",
    versions: (0, 1),
    flexible: 0,
    request: &[
        int32("timeout_ms"),
        boolean("allow_replication_factor_change").since(1),
        list("topics")
            .of(&[topic("name"), list("partitions").of(&[int32("partition_index"), int32("replicas").many()])]),
    ],
    response: &[
        int32("throttle_time_ms"),
        boolean("allow_replication_factor_change").since(1),
        error("error_code"),
        text("error_message"),
        list("responses").of(&[
            topic("name"),
            list("partitions").of(&[int32("partition_index"), error("error_code"), text("error_message")]),
        ]),
    ],
};

pub(super) static LIST_PARTITION_REASSIGNMENTS: Api = Api {
    key: 46,
    name: "ListPartitionReassignments",
    versions: (0, 0),
    flexible: 0,
    request: &[int32("timeout_ms"), list("topics").of(&[topic("name"), int32("partition_indexes").many()])],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        list("topics").of(&[
            topic("name"),
            list("partitions").of(&[
                int32("partition_index"),
                int32("replicas").many(),
                int32("adding_replicas").many(),
                int32("removing_replicas").many(),
            ]),
        ]),
    ],
};

pub(super) static ALTER_REPLICA_LOG_DIRS: Api = Api {
    key: 34,
    name: "AlterReplicaLogDirs",
    versions: (0, 2),
    flexible: 2,
    request: &[list("dirs").of(&[text("path"), list("topics").of(&[topic("name"), int32("partitions").many()])])],
    response: &[
        int32("throttle_time_ms"),
        list("results")
            .of(&[topic("topic_name"), list("partitions").of(&[int32("partition_index"), error("error_code")])]),
    ],
};

pub(super) static DESCRIBE_LOG_DIRS: Api = Api {
    key: 35,
    name: "DescribeLogDirs",
    versions: (0, 5),
    flexible: 2,
    request: &[list("topics").of(&[topic("topic"), int32("partitions").many()])],
    response: &[
        int32("throttle_time_ms"),
        error("error_code").since(3),
        list("results").of(&[
            error("error_code"),
            text("log_dir"),
            list("topics").of(&[
                topic("name"),
                list("partitions").of(&[
                    int32("partition_index"),
                    int64("partition_size"),
                    int64("offset_lag"),
                    boolean("is_future_key"),
                ]),
            ]),
            int64("total_bytes").since(4),
            int64("usable_bytes").since(4),
            boolean("is_cordoned").since(5),
        ]),
    ],
};
