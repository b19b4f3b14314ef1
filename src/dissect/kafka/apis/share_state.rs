//! The state of share groups, between their coordinator and its store.

use crate::dissect::kafka::schema::{Api, Field, error, int8, int16, int32, int64, list, text, topic_id};

/// What became of each partition.
const RESULTS: &[Field] = &[list("results").of(&[
    topic_id("topic_id"),
    list("partitions").of(&[int32("partition"), error("error_code"), text("error_message")]),
])];

/// Records that are next to each other and in the same state.
const STATE_BATCH: &[Field] =
    &[int64("first_offset"), int64("last_offset"), int8("delivery_state"), int16("delivery_count")];

pub(super) static INITIALIZE_SHARE_GROUP_STATE: Api = Api {
    key: 83,
    name: "InitializeShareGroupState",
    versions: (0, 0),
    flexible: 0,
    request: &[
        text("group_id"),
        list("topics").of(&[
            topic_id("topic_id"),
            list("partitions").of(&[int32("partition"), int32("state_epoch"), int64("start_offset")]),
        ]),
    ],
    response: RESULTS,
};

pub(super) static READ_SHARE_GROUP_STATE: Api = Api {
    key: 84,
    name: "ReadShareGroupState",
    versions: (0, 0),
    flexible: 0,
    request: &[
        text("group_id"),
        list("topics").of(&[topic_id("topic_id"), list("partitions").of(&[int32("partition"), int32("leader_epoch")])]),
    ],
    response: &[list("results").of(&[
        topic_id("topic_id"),
        list("partitions").of(&[
            int32("partition"),
            error("error_code"),
            text("error_message"),
            int32("state_epoch"),
            int64("start_offset"),
            list("state_batches").of(STATE_BATCH),
        ]),
    ])],
};

pub(super) static WRITE_SHARE_GROUP_STATE: Api = Api {
    key: 85,
    name: "WriteShareGroupState",
    versions: (0, 1),
    flexible: 0,
    request: &[
        text("group_id"),
        list("topics").of(&[
            topic_id("topic_id"),
            list("partitions").of(&[
                int32("partition"),
                int32("state_epoch"),
                int32("leader_epoch"),
                int64("start_offset"),
                int32("delivery_complete_count").since(1),
                list("state_batches").of(STATE_BATCH),
            ]),
        ]),
    ],
    response: RESULTS,
};

pub(super) static DELETE_SHARE_GROUP_STATE: Api = Api {
    key: 86,
    name: "DeleteShareGroupState",
    versions: (0, 0),
    flexible: 0,
    request: &[
        text("group_id"),
        list("topics").of(&[topic_id("topic_id"), list("partitions").of(&[int32("partition")])]),
    ],
    response: RESULTS,
};

pub(super) static READ_SHARE_GROUP_STATE_SUMMARY: Api = Api {
    key: 87,
    name: "ReadShareGroupStateSummary",
    versions: (0, 1),
    flexible: 0,
    request: &[
        text("group_id"),
        list("topics").of(&[topic_id("topic_id"), list("partitions").of(&[int32("partition"), int32("leader_epoch")])]),
    ],
    response: &[list("results").of(&[
        topic_id("topic_id"),
        list("partitions").of(&[
            int32("partition"),
            error("error_code"),
            text("error_message"),
            int32("state_epoch"),
            int32("leader_epoch"),
            int64("start_offset"),
            int32("delivery_complete_count").since(1),
        ]),
    ])],
};
