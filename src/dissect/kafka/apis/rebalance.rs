//! Groups whose coordinator assigns partitions (KIP-848), and those of streams applications (KIP-1071).

use crate::dissect::kafka::schema::{
    Api, Field, boolean, error, int8, int16, int32, int64, list, one, text, topic, topic_id, uint16,
};

/// What a topology of Kafka Streams is described by.
const TOPOLOGY: &[Field] = &[
    list("subtopologies").of(&[text("subtopology_id"), list("nodes").of(NODE)]),
    list("global_stores").of(&[one("source").of(NODE), one("processor").of(NODE)]),
];

/// One of its nodes.
const NODE: &[Field] = &[
    text("name"),
    int8("node_type"),
    topic("source_topics").many(),
    topic("sink_topic"),
    text("stores").many(),
    text("successors").many(),
];

/// A topic that streams applications make for themselves.
const INTERNAL_TOPIC: &[Field] = &[
    topic("name"),
    int32("partitions"),
    int16("replication_factor"),
    list("topic_configs").of(&[text("key"), text("value")]),
];

/// Tasks of a subtopology, one for each partition.
const TASKS: &[Field] = &[text("subtopology_id"), int32("partitions").many()];

/// All tasks of a member.
const ASSIGNMENT: &[Field] =
    &[list("active_tasks").of(TASKS), list("standby_tasks").of(TASKS), list("warmup_tasks").of(TASKS)];

pub(super) static CONSUMER_GROUP_HEARTBEAT: Api = Api {
    key: 68,
    name: "ConsumerGroupHeartbeat",
    versions: (0, 1),
    flexible: 0,
    request: &[
        text("group_id"),
        text("member_id"),
        int32("member_epoch"),
        text("instance_id"),
        text("rack_id"),
        int32("rebalance_timeout_ms"),
        topic("subscribed_topic_names").many(),
        text("subscribed_topic_regex").since(1),
        text("server_assignor"),
        list("topic_partitions").of(&[topic_id("topic_id"), int32("partitions").many()]),
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

pub(super) static CONSUMER_GROUP_DESCRIBE: Api = Api {
    key: 69,
    name: "ConsumerGroupDescribe",
    versions: (0, 1),
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
                text("instance_id"),
                text("rack_id"),
                int32("member_epoch"),
                text("client_id"),
                text("client_host"),
                topic("subscribed_topic_names").many(),
                text("subscribed_topic_regex"),
                one("assignment").of(&[list("topic_partitions").of(&[
                    topic_id("topic_id"),
                    topic("topic_name"),
                    int32("partitions").many(),
                ])]),
                one("target_assignment").of(&[list("topic_partitions").of(&[
                    topic_id("topic_id"),
                    topic("topic_name"),
                    int32("partitions").many(),
                ])]),
                int8("member_type").since(1),
            ]),
            int32("authorized_operations"),
        ]),
    ],
};

pub(super) static STREAMS_GROUP_HEARTBEAT: Api = Api {
    key: 88,
    name: "StreamsGroupHeartbeat",
    versions: (0, 1),
    flexible: 0,
    request: &[
        text("group_id"),
        text("member_id"),
        int32("member_epoch"),
        int32("endpoint_information_epoch"),
        text("instance_id"),
        text("rack_id"),
        int32("rebalance_timeout_ms"),
        one("topology").nullable().of(&[
            int32("epoch"),
            list("subtopologies").of(&[
                text("subtopology_id"),
                topic("source_topics").many(),
                text("source_topic_regex").many(),
                list("state_changelog_topics").of(INTERNAL_TOPIC),
                topic("repartition_sink_topics").many(),
                list("repartition_source_topics").of(INTERNAL_TOPIC),
                list("copartition_groups").of(&[
                    int16("source_topics").many(),
                    int16("source_topic_regex").many(),
                    int16("repartition_source_topics").many(),
                ]),
            ]),
        ]),
        list("active_tasks").of(TASKS),
        list("standby_tasks").of(TASKS),
        list("warmup_tasks").of(TASKS),
        text("process_id"),
        one("user_endpoint").nullable().of(&[text("host"), uint16("port")]),
        list("client_tags").of(&[text("key"), text("value")]),
        list("task_offsets").of(&[text("subtopology_id"), int32("partition"), int64("offset")]),
        list("task_end_offsets").of(&[text("subtopology_id"), int32("partition"), int64("offset")]),
        boolean("shutdown_application"),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        text("member_id"),
        int32("member_epoch"),
        int32("heartbeat_interval_ms"),
        int32("acceptable_recovery_lag_legacy").until(0),
        int32("task_offset_interval_ms"),
        int64("acceptable_recovery_lag").since(1),
        list("status").of(&[int8("status_code"), text("status_detail")]),
        list("active_tasks").of(TASKS),
        list("standby_tasks").of(TASKS),
        list("warmup_tasks").of(TASKS),
        boolean("topology_description_required").since(1),
        int32("endpoint_information_epoch"),
        list("partitions_by_user_endpoint").of(&[
            one("user_endpoint").of(&[text("host"), uint16("port")]),
            list("active_partitions").of(&[topic("topic"), int32("partitions").many()]),
            list("standby_partitions").of(&[topic("topic"), int32("partitions").many()]),
        ]),
    ],
};

pub(super) static STREAMS_GROUP_DESCRIBE: Api = Api {
    key: 89,
    name: "StreamsGroupDescribe",
    versions: (0, 1),
    flexible: 0,
    request: &[
        text("group_ids").many(),
        boolean("include_authorized_operations"),
        boolean("include_topology_description").since(1),
    ],
    response: &[
        int32("throttle_time_ms"),
        list("groups").of(&[
            error("error_code"),
            text("error_message"),
            text("group_id"),
            text("group_state"),
            int32("group_epoch"),
            int32("assignment_epoch"),
            one("topology").nullable().of(&[
                int32("epoch"),
                list("subtopologies").of(&[
                    text("subtopology_id"),
                    topic("source_topics").many(),
                    topic("repartition_sink_topics").many(),
                    list("state_changelog_topics").of(INTERNAL_TOPIC),
                    list("repartition_source_topics").of(INTERNAL_TOPIC),
                ]),
            ]),
            list("members").of(&[
                text("member_id"),
                int32("member_epoch"),
                text("instance_id"),
                text("rack_id"),
                text("client_id"),
                text("client_host"),
                int32("topology_epoch"),
                text("process_id"),
                one("user_endpoint").nullable().of(&[text("host"), uint16("port")]),
                list("client_tags").of(&[text("key"), text("value")]),
                list("task_offsets").of(&[text("subtopology_id"), int32("partition"), int64("offset")]),
                list("task_end_offsets").of(&[text("subtopology_id"), int32("partition"), int64("offset")]),
                one("assignment").of(ASSIGNMENT),
                one("target_assignment").of(ASSIGNMENT),
                boolean("is_classic"),
            ]),
            int32("authorized_operations"),
            one("topology_description").nullable().since(1).of(TOPOLOGY),
            int8("topology_description_status").since(1),
            text("assignor_name").since(1),
        ]),
    ],
};

pub(super) static STREAMS_GROUP_TOPOLOGY_DESCRIPTION_UPDATE: Api = Api {
    key: 93,
    name: "StreamsGroupTopologyDescriptionUpdate",
    versions: (0, 0),
    flexible: 0,
    request: &[text("group_id"), text("member_id"), int32("topology_epoch"), one("topology_description").of(TOPOLOGY)],
    response: &[int32("throttle_time_ms"), error("error_code"), text("error_message")],
};
