//! Records: written, read, found, deleted.

use crate::dissect::kafka::schema::{
    Api, acks, error, int8, int32, int64, list, one, records, text, topic, topic_id, uuid,
};

pub(super) static PRODUCE: Api = Api {
    key: 0,
    name: "Produce",
    versions: (0, 13),
    flexible: 9,
    request: &[
        text("transactional_id").since(3),
        acks("acks"),
        int32("timeout_ms"),
        list("topic_data").of(&[
            topic("name").until(12),
            topic_id("topic_id").since(13),
            list("partition_data").of(&[int32("index"), records("records")]),
        ]),
    ],
    response: &[
        list("responses").of(&[
            topic("name").until(12),
            topic_id("topic_id").since(13),
            list("partition_responses").of(&[
                int32("index"),
                error("error_code"),
                int64("base_offset"),
                int64("log_append_time_ms").since(2),
                int64("log_start_offset").since(5),
                list("record_errors").since(8).of(&[int32("batch_index"), text("batch_index_error_message")]),
                text("error_message").since(8),
                one("current_leader").since(10).tag(0).of(&[int32("leader_id"), int32("leader_epoch")]),
            ]),
        ]),
        int32("throttle_time_ms").since(1),
        list("node_endpoints").since(10).tag(0).of(&[int32("node_id"), text("host"), int32("port"), text("rack")]),
    ],
};

pub(super) static FETCH: Api = Api {
    key: 1,
    name: "Fetch",
    versions: (0, 18),
    flexible: 12,
    request: &[
        text("cluster_id").since(12).tag(0),
        int32("replica_id").until(14),
        one("replica_state").since(15).tag(1).of(&[int32("replica_id"), int64("replica_epoch")]),
        int32("max_wait_ms"),
        int32("min_bytes"),
        int32("max_bytes").since(3),
        int8("isolation_level").since(4),
        int32("session_id").since(7),
        int32("session_epoch").since(7),
        list("topics").of(&[
            topic("topic").until(12),
            topic_id("topic_id").since(13),
            list("partitions").of(&[
                int32("partition"),
                int32("current_leader_epoch").since(9),
                int64("fetch_offset"),
                int32("last_fetched_epoch").since(12),
                int64("log_start_offset").since(5),
                int32("partition_max_bytes"),
                uuid("replica_directory_id").since(17).tag(0),
                int64("high_watermark").since(18).tag(1),
            ]),
        ]),
        list("forgotten_topics_data").since(7).of(&[
            topic("topic").until(12),
            topic_id("topic_id").since(13),
            int32("partitions").many(),
        ]),
        text("rack_id").since(11),
    ],
    response: &[
        int32("throttle_time_ms").since(1),
        error("error_code").since(7),
        int32("session_id").since(7),
        list("responses").of(&[
            topic("topic").until(12),
            topic_id("topic_id").since(13),
            list("partitions").of(&[
                int32("partition_index"),
                error("error_code"),
                int64("high_watermark"),
                int64("last_stable_offset").since(4),
                int64("log_start_offset").since(5),
                one("diverging_epoch").since(12).tag(0).of(&[int32("epoch"), int64("end_offset")]),
                one("current_leader").since(12).tag(1).of(&[int32("leader_id"), int32("leader_epoch")]),
                one("snapshot_id").since(12).tag(2).of(&[int64("end_offset"), int32("epoch")]),
                list("aborted_transactions").since(4).nullable().of(&[int64("producer_id"), int64("first_offset")]),
                int32("preferred_read_replica").since(11),
                records("records"),
            ]),
        ]),
        list("node_endpoints").since(16).tag(0).of(&[int32("node_id"), text("host"), int32("port"), text("rack")]),
    ],
};

pub(super) static LIST_OFFSETS: Api = Api {
    key: 2,
    name: "ListOffsets",
    versions: (0, 11),
    flexible: 6,
    request: &[
        int32("replica_id"),
        int8("isolation_level").since(2),
        list("topics").of(&[
            topic("name"),
            list("partitions").of(&[
                int32("partition_index"),
                int32("current_leader_epoch").since(4),
                int64("timestamp"),
                int32("max_num_offsets").until(0),
            ]),
        ]),
        int32("timeout_ms").since(10),
    ],
    response: &[
        int32("throttle_time_ms").since(2),
        list("topics").of(&[
            topic("name"),
            list("partitions").of(&[
                int32("partition_index"),
                error("error_code"),
                int64("old_style_offsets").many().until(0),
                int64("timestamp").since(1),
                int64("offset").since(1),
                int32("leader_epoch").since(4),
            ]),
        ]),
    ],
};

pub(super) static DELETE_RECORDS: Api = Api {
    key: 21,
    name: "DeleteRecords",
    versions: (0, 2),
    flexible: 2,
    request: &[
        list("topics").of(&[topic("name"), list("partitions").of(&[int32("partition_index"), int64("offset")])]),
        int32("timeout_ms"),
    ],
    response: &[
        int32("throttle_time_ms"),
        list("topics").of(&[
            topic("name"),
            list("partitions").of(&[int32("partition_index"), int64("low_watermark"), error("error_code")]),
        ]),
    ],
};

pub(super) static OFFSET_FOR_LEADER_EPOCH: Api = Api {
    key: 23,
    name: "OffsetForLeaderEpoch",
    versions: (0, 4),
    flexible: 4,
    request: &[
        int32("replica_id").since(3),
        list("topics").of(&[
            topic("topic"),
            list("partitions").of(&[int32("partition"), int32("current_leader_epoch").since(2), int32("leader_epoch")]),
        ]),
    ],
    response: &[
        int32("throttle_time_ms").since(2),
        list("topics").of(&[
            topic("topic"),
            list("partitions").of(&[
                error("error_code"),
                int32("partition"),
                int32("leader_epoch").since(1),
                int64("end_offset"),
            ]),
        ]),
    ],
};
