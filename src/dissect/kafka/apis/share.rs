//! Share groups (KIP-932).

use crate::dissect::kafka::schema::{
    Api, Field, boolean, error, int8, int16, int32, int64, list, one, records, text, topic, topic_id,
};

/// Which records of a topic a member is done with, and how.
const ACKNOWLEDGED: &[Field] = &[
    topic_id("topic_id"),
    list("partitions").of(&[
        int32("partition_index"),
        list("acknowledgement_batches").of(&[
            int64("first_offset"),
            int64("last_offset"),
            int8("acknowledge_types").many(),
        ]),
    ]),
];

pub(super) static SHARE_GROUP_HEARTBEAT: Api = Api {
    key: 76,
    name: "ShareGroupHeartbeat",
    versions: (1, 1),
    flexible: 0,
    request: &[
        text("group_id"),
        text("member_id"),
        int32("member_epoch"),
        text("rack_id"),
        topic("subscribed_topic_names").many(),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        text("member_id"),
        int32("member_epoch"),
        int32("heartbeat_interval_ms"),
        one("assignment")
            .nullable()
            .of(&[list("topic_partitions").of(&[topic_id("topic_id"), int32("partitions").many()])]),
    ],
};

pub(super) static SHARE_GROUP_DESCRIBE: Api = Api {
    key: 77,
    name: "ShareGroupDescribe",
    versions: (1, 1),
    flexible: 0,
    request: &[text("group_ids").many(), boolean("include_authorized_operations")],
    response: &[
        int32("throttle_time_ms"),
        list("groups").of(&[
            error("error_code"),
            text("error_message"),
            text("group_id"),
            text("group_state"),
            int32("group_epoch"),
            int32("assignment_epoch"),
            text("assignor_name"),
            list("members").of(&[
                text("member_id"),
                text("rack_id"),
                int32("member_epoch"),
                text("client_id"),
                text("client_host"),
                topic("subscribed_topic_names").many(),
                one("assignment").of(&[list("topic_partitions").of(&[
                    topic_id("topic_id"),
                    topic("topic_name"),
                    int32("partitions").many(),
                ])]),
            ]),
            int32("authorized_operations"),
        ]),
    ],
};

pub(super) static SHARE_FETCH: Api = Api {
    key: 78,
    name: "ShareFetch",
    versions: (1, 2),
    flexible: 0,
    request: &[
        text("group_id"),
        text("member_id"),
        int32("share_session_epoch"),
        int32("max_wait_ms"),
        int32("min_bytes"),
        int32("max_bytes"),
        int32("max_records"),
        int32("batch_size"),
        int8("share_acquire_mode").since(2),
        boolean("is_renew_ack").since(2),
        list("topics").of(ACKNOWLEDGED),
        list("forgotten_topics_data").of(&[topic_id("topic_id"), int32("partitions").many()]),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        int32("acquisition_lock_timeout_ms"),
        list("responses").of(&[
            topic_id("topic_id"),
            list("partitions").of(&[
                int32("partition_index"),
                error("error_code"),
                text("error_message"),
                error("acknowledge_error_code"),
                text("acknowledge_error_message"),
                one("current_leader").of(&[int32("leader_id"), int32("leader_epoch")]),
                records("records"),
                list("acquired_records").of(&[int64("first_offset"), int64("last_offset"), int16("delivery_count")]),
            ]),
        ]),
        list("node_endpoints").of(&[int32("node_id"), text("host"), int32("port"), text("rack")]),
    ],
};

pub(super) static SHARE_ACKNOWLEDGE: Api = Api {
    key: 79,
    name: "ShareAcknowledge",
    versions: (1, 2),
    flexible: 0,
    request: &[
        text("group_id"),
        text("member_id"),
        int32("share_session_epoch"),
        boolean("is_renew_ack").since(2),
        list("topics").of(ACKNOWLEDGED),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        int32("acquisition_lock_timeout_ms").since(2),
        list("responses").of(&[
            topic_id("topic_id"),
            list("partitions").of(&[
                int32("partition_index"),
                error("error_code"),
                text("error_message"),
                one("current_leader").of(&[int32("leader_id"), int32("leader_epoch")]),
            ]),
        ]),
        list("node_endpoints").of(&[int32("node_id"), text("host"), int32("port"), text("rack")]),
    ],
};

pub(super) static DESCRIBE_SHARE_GROUP_OFFSETS: Api = Api {
    key: 90,
    name: "DescribeShareGroupOffsets",
    versions: (0, 1),
    flexible: 0,
    request: &[
        list("groups").of(&[text("group_id"), list("topics").of(&[topic("topic_name"), int32("partitions").many()])])
    ],
    response: &[
        int32("throttle_time_ms"),
        list("groups").of(&[
            text("group_id"),
            list("topics").of(&[
                topic("topic_name"),
                topic_id("topic_id"),
                list("partitions").of(&[
                    int32("partition_index"),
                    int64("start_offset"),
                    int32("leader_epoch"),
                    int64("lag").since(1),
                    error("error_code"),
                    text("error_message"),
                ]),
            ]),
            error("error_code"),
            text("error_message"),
        ]),
    ],
};

pub(super) static ALTER_SHARE_GROUP_OFFSETS: Api = Api {
    key: 91,
    name: "AlterShareGroupOffsets",
    versions: (0, 0),
    flexible: 0,
    request: &[
        text("group_id"),
        list("topics")
            .of(&[topic("topic_name"), list("partitions").of(&[int32("partition_index"), int64("start_offset")])]),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        list("responses").of(&[
            topic("topic_name"),
            topic_id("topic_id"),
            list("partitions").of(&[int32("partition_index"), error("error_code"), text("error_message")]),
        ]),
    ],
};

pub(super) static DELETE_SHARE_GROUP_OFFSETS: Api = Api {
    key: 92,
    name: "DeleteShareGroupOffsets",
    versions: (0, 0),
    flexible: 0,
    request: &[text("group_id"), list("topics").of(&[topic("topic_name")])],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        list("responses").of(&[topic("topic_name"), topic_id("topic_id"), error("error_code"), text("error_message")]),
    ],
};
