//! Offsets of consumer groups.

use crate::dissect::kafka::schema::{Api, NEVER, boolean, error, int32, int64, list, text, topic, topic_id};

pub(super) static OFFSET_COMMIT: Api = Api {
    key: 8,
    name: "OffsetCommit",
    versions: (0, 10),
    flexible: 8,
    request: &[
        text("group_id"),
        int32("generation_id_or_member_epoch").since(1),
        text("member_id").since(1),
        text("group_instance_id").since(7),
        int64("retention_time_ms").since(2).until(4),
        list("topics").of(&[
            topic("name").until(9),
            topic_id("topic_id").since(10),
            list("partitions").of(&[
                int32("partition_index"),
                int64("committed_offset"),
                int32("committed_leader_epoch").since(6),
                int64("commit_timestamp").since(1).until(1),
                text("committed_metadata"),
            ]),
        ]),
    ],
    response: &[
        int32("throttle_time_ms").since(3),
        list("topics").of(&[
            topic("name").until(9),
            topic_id("topic_id").since(10),
            list("partitions").of(&[int32("partition_index"), error("error_code")]),
        ]),
    ],
};

pub(super) static OFFSET_FETCH: Api = Api {
    key: 9,
    name: "OffsetFetch",
    versions: (0, 10),
    flexible: 6,
    request: &[
        text("group_id").until(7),
        list("topics").until(7).of(&[topic("name"), int32("partition_indexes").many()]),
        list("groups").since(8).of(&[
            text("group_id"),
            text("member_id").since(9),
            int32("member_epoch").since(9),
            list("topics").of(&[
                topic("name").until(9),
                topic_id("topic_id").since(10),
                int32("partition_indexes").many(),
            ]),
        ]),
        boolean("require_stable").since(7),
    ],
    response: &[
        int32("throttle_time_ms").since(3),
        list("topics").until(7).of(&[
            topic("name"),
            list("partitions").of(&[
                int32("partition_index"),
                int64("committed_offset"),
                int32("committed_leader_epoch").since(5),
                text("metadata"),
                error("error_code"),
            ]),
        ]),
        error("error_code").since(2).until(7),
        list("groups").since(8).of(&[
            text("group_id"),
            list("topics").of(&[
                topic("name").until(9),
                topic_id("topic_id").since(10),
                list("partitions").of(&[
                    int32("partition_index"),
                    int64("committed_offset"),
                    int32("committed_leader_epoch"),
                    text("metadata"),
                    error("error_code"),
                ]),
            ]),
            error("error_code"),
        ]),
    ],
};

pub(super) static OFFSET_DELETE: Api = Api {
    key: 47,
    name: "OffsetDelete",
    versions: (0, 0),
    flexible: NEVER,
    request: &[
        text("group_id"),
        list("topics").of(&[topic("name"), list("partitions").of(&[int32("partition_index")])]),
    ],
    response: &[
        error("error_code"),
        int32("throttle_time_ms"),
        list("topics").of(&[topic("name"), list("partitions").of(&[int32("partition_index"), error("error_code")])]),
    ],
};
