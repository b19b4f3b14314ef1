//! Transactions.

use crate::dissect::kafka::schema::{Api, boolean, error, int8, int16, int32, int64, list, text, topic, topic_id};

pub(super) static INIT_PRODUCER_ID: Api = Api {
    key: 22,
    name: "InitProducerId",
    versions: (0, 6),
    flexible: 2,
    request: &[
        text("transactional_id"),
        int32("transaction_timeout_ms"),
        int64("producer_id").since(3),
        int16("producer_epoch").since(3),
        boolean("enable2_pc").since(6),
        boolean("keep_prepared_txn").since(6),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        int64("producer_id"),
        int16("producer_epoch"),
        int64("ongoing_txn_producer_id").since(6),
        int16("ongoing_txn_producer_epoch").since(6),
    ],
};

pub(super) static ADD_PARTITIONS_TO_TXN: Api = Api {
    key: 24,
    name: "AddPartitionsToTxn",
    versions: (0, 5),
    flexible: 3,
    request: &[
        list("transactions").since(4).of(&[
            text("transactional_id"),
            int64("producer_id"),
            int16("producer_epoch"),
            boolean("verify_only"),
            list("topics").of(&[topic("name"), int32("partitions").many()]),
        ]),
        text("v3_and_below_transactional_id").until(3),
        int64("v3_and_below_producer_id").until(3),
        int16("v3_and_below_producer_epoch").until(3),
        list("v3_and_below_topics").until(3).of(&[topic("name"), int32("partitions").many()]),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code").since(4),
        list("results_by_transaction").since(4).of(&[
            text("transactional_id"),
            list("topic_results").of(&[
                topic("name"),
                list("results_by_partition").of(&[int32("partition_index"), error("partition_error_code")]),
            ]),
        ]),
        list("results_by_topic_v3_and_below").until(3).of(&[
            topic("name"),
            list("results_by_partition").of(&[int32("partition_index"), error("partition_error_code")]),
        ]),
    ],
};

pub(super) static ADD_OFFSETS_TO_TXN: Api = Api {
    key: 25,
    name: "AddOffsetsToTxn",
    versions: (0, 4),
    flexible: 3,
    request: &[text("transactional_id"), int64("producer_id"), int16("producer_epoch"), text("group_id")],
    response: &[int32("throttle_time_ms"), error("error_code")],
};

pub(super) static END_TXN: Api = Api {
    key: 26,
    name: "EndTxn",
    versions: (0, 5),
    flexible: 3,
    request: &[text("transactional_id"), int64("producer_id"), int16("producer_epoch"), boolean("committed")],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        int64("producer_id").since(5),
        int16("producer_epoch").since(5),
    ],
};

pub(super) static WRITE_TXN_MARKERS: Api = Api {
    key: 27,
    name: "WriteTxnMarkers",
    versions: (0, 2),
    flexible: 1,
    request: &[list("markers").of(&[
        int64("producer_id"),
        int16("producer_epoch"),
        boolean("transaction_result"),
        list("topics").of(&[topic("name"), int32("partition_indexes").many()]),
        int32("coordinator_epoch"),
        int8("transaction_version").since(2),
    ])],
    response: &[list("markers").of(&[
        int64("producer_id"),
        list("topics").of(&[topic("name"), list("partitions").of(&[int32("partition_index"), error("error_code")])]),
    ])],
};

pub(super) static TXN_OFFSET_COMMIT: Api = Api {
    key: 28,
    name: "TxnOffsetCommit",
    versions: (0, 6),
    flexible: 3,
    request: &[
        text("transactional_id"),
        text("group_id"),
        int64("producer_id"),
        int16("producer_epoch"),
        int32("generation_id_or_member_epoch").since(3),
        text("member_id").since(3),
        text("group_instance_id").since(3),
        list("topics").of(&[
            topic("name").until(5),
            topic_id("topic_id").since(6),
            list("partitions").of(&[
                int32("partition_index"),
                int64("committed_offset"),
                int32("committed_leader_epoch").since(2),
                text("committed_metadata"),
            ]),
        ]),
    ],
    response: &[
        int32("throttle_time_ms"),
        list("topics").of(&[
            topic("name").until(5),
            topic_id("topic_id").since(6),
            list("partitions").of(&[int32("partition_index"), error("error_code")]),
        ]),
    ],
};

pub(super) static DESCRIBE_PRODUCERS: Api = Api {
    key: 61,
    name: "DescribeProducers",
    versions: (0, 0),
    flexible: 0,
    request: &[list("topics").of(&[topic("name"), int32("partition_indexes").many()])],
    response: &[
        int32("throttle_time_ms"),
        list("topics").of(&[
            topic("name"),
            list("partitions").of(&[
                int32("partition_index"),
                error("error_code"),
                text("error_message"),
                list("active_producers").of(&[
                    int64("producer_id"),
                    int32("producer_epoch"),
                    int32("last_sequence"),
                    int64("last_timestamp"),
                    int32("coordinator_epoch"),
                    int64("current_txn_start_offset"),
                ]),
            ]),
        ]),
    ],
};

pub(super) static DESCRIBE_TRANSACTIONS: Api = Api {
    key: 65,
    name: "DescribeTransactions",
    versions: (0, 0),
    flexible: 0,
    request: &[text("transactional_ids").many()],
    response: &[
        int32("throttle_time_ms"),
        list("transaction_states").of(&[
            error("error_code"),
            text("transactional_id"),
            text("transaction_state"),
            int32("transaction_timeout_ms"),
            int64("transaction_start_time_ms"),
            int64("producer_id"),
            int16("producer_epoch"),
            list("topics").of(&[topic("topic"), int32("partitions").many()]),
        ]),
    ],
};

pub(super) static LIST_TRANSACTIONS: Api = Api {
    key: 66,
    name: "ListTransactions",
    versions: (0, 2),
    flexible: 0,
    request: &[
        text("state_filters").many(),
        int64("producer_id_filters").many(),
        int64("duration_filter").since(1),
        text("transactional_id_pattern").since(2),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("unknown_state_filters").many(),
        list("transaction_states").of(&[text("transactional_id"), int64("producer_id"), text("transaction_state")]),
    ],
};
