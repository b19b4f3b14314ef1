//! Groups of consumers that assign partitions among themselves.

use crate::dissect::kafka::schema::{Api, Held, boolean, bytes, error, int8, int32, list, text};

pub(super) static FIND_COORDINATOR: Api = Api {
    key: 10,
    name: "FindCoordinator",
    versions: (0, 6),
    flexible: 3,
    request: &[text("key").until(3), int8("key_type").since(1), text("coordinator_keys").many().since(4)],
    response: &[
        int32("throttle_time_ms").since(1),
        error("error_code").until(3),
        text("error_message").since(1).until(3),
        int32("node_id").until(3),
        text("host").until(3),
        int32("port").until(3),
        list("coordinators").since(4).of(&[
            text("key"),
            int32("node_id"),
            text("host"),
            int32("port"),
            error("error_code"),
            text("error_message"),
        ]),
    ],
};

pub(super) static JOIN_GROUP: Api = Api {
    key: 11,
    name: "JoinGroup",
    versions: (0, 9),
    flexible: 6,
    request: &[
        text("group_id"),
        int32("session_timeout_ms"),
        int32("rebalance_timeout_ms").since(1),
        text("member_id"),
        text("group_instance_id").since(5),
        text("protocol_type"),
        list("protocols").of(&[text("name"), bytes("metadata").holding(&SUBSCRIPTION)]),
        text("reason").since(8),
    ],
    response: &[
        int32("throttle_time_ms").since(2),
        error("error_code"),
        int32("generation_id"),
        text("protocol_type").since(7),
        text("protocol_name"),
        text("leader"),
        boolean("skip_assignment").since(9),
        text("member_id"),
        list("members").of(&[
            text("member_id"),
            text("group_instance_id").since(5),
            bytes("metadata").holding(&SUBSCRIPTION),
        ]),
    ],
};

pub(super) static HEARTBEAT: Api = Api {
    key: 12,
    name: "Heartbeat",
    versions: (0, 4),
    flexible: 4,
    request: &[text("group_id"), int32("generation_id"), text("member_id"), text("group_instance_id").since(3)],
    response: &[int32("throttle_time_ms").since(1), error("error_code")],
};

pub(super) static LEAVE_GROUP: Api = Api {
    key: 13,
    name: "LeaveGroup",
    versions: (0, 5),
    flexible: 4,
    request: &[
        text("group_id"),
        text("member_id").until(2),
        list("members").since(3).of(&[text("member_id"), text("group_instance_id"), text("reason").since(5)]),
    ],
    response: &[
        int32("throttle_time_ms").since(1),
        error("error_code"),
        list("members").since(3).of(&[text("member_id"), text("group_instance_id"), error("error_code")]),
    ],
};

pub(super) static SYNC_GROUP: Api = Api {
    key: 14,
    name: "SyncGroup",
    versions: (0, 5),
    flexible: 4,
    request: &[
        text("group_id"),
        int32("generation_id"),
        text("member_id"),
        text("group_instance_id").since(3),
        text("protocol_type").since(5),
        text("protocol_name").since(5),
        list("assignments").of(&[text("member_id"), bytes("assignment").holding(&ASSIGNMENT)]),
    ],
    response: &[
        int32("throttle_time_ms").since(1),
        error("error_code"),
        text("protocol_type").since(5),
        text("protocol_name").since(5),
        bytes("assignment").holding(&ASSIGNMENT),
    ],
};

pub(super) static DESCRIBE_GROUPS: Api = Api {
    key: 15,
    name: "DescribeGroups",
    versions: (0, 6),
    flexible: 5,
    request: &[text("groups").many(), boolean("include_authorized_operations").since(3)],
    response: &[
        int32("throttle_time_ms").since(1),
        list("groups").of(&[
            error("error_code"),
            text("error_message").since(6),
            text("group_id"),
            text("group_state"),
            text("protocol_type"),
            text("protocol_data"),
            list("members").of(&[
                text("member_id"),
                text("group_instance_id").since(4),
                text("client_id"),
                text("client_host"),
                bytes("member_metadata").holding(&SUBSCRIPTION),
                bytes("member_assignment").holding(&ASSIGNMENT),
            ]),
            int32("authorized_operations").since(3),
        ]),
    ],
};

pub(super) static LIST_GROUPS: Api = Api {
    key: 16,
    name: "ListGroups",
    versions: (0, 5),
    flexible: 3,
    request: &[text("states_filter").many().since(4), text("types_filter").many().since(5)],
    response: &[
        int32("throttle_time_ms").since(1),
        error("error_code"),
        list("groups").of(&[
            text("group_id"),
            text("protocol_type"),
            text("group_state").since(4),
            text("group_type").since(5),
        ]),
    ],
};

pub(super) static DELETE_GROUPS: Api = Api {
    key: 42,
    name: "DeleteGroups",
    versions: (0, 3),
    flexible: 2,
    request: &[text("groups_names").many()],
    response: &[
        int32("throttle_time_ms"),
        list("results").of(&[text("group_id"), error("error_code"), text("error_message").since(3)]),
    ],
};

/// What a consumer tells the leader of its group.
static SUBSCRIPTION: Held = Held {
    newest: 3,
    fields: &[
        text("topics").many(),
        bytes("user_data"),
        list("owned_partitions").since(1).of(&[text("topic"), int32("partitions").many()]),
        int32("generation_id").since(2),
        text("rack_id").since(3),
    ],
};

/// What the leader gives a consumer.
static ASSIGNMENT: Held = Held {
    newest: 3,
    fields: &[list("assigned_partitions").of(&[text("topic"), int32("partitions").many()]), bytes("user_data")],
};
