//! Authentication, permissions and credentials.

use crate::dissect::kafka::schema::{
    Api, NEVER, bytes, error, int8, int32, int64, list, resource_name, resource_type, text,
};

pub(super) static SASL_HANDSHAKE: Api = Api {
    key: 17,
    name: "SaslHandshake",
    versions: (0, 1),
    flexible: NEVER,
    request: &[text("mechanism")],
    response: &[error("error_code"), text("mechanisms").many()],
};

pub(super) static SASL_AUTHENTICATE: Api = Api {
    key: 36,
    name: "SaslAuthenticate",
    versions: (0, 2),
    flexible: 2,
    request: &[bytes("auth_bytes").secret()],
    response: &[
        error("error_code"),
        text("error_message"),
        bytes("auth_bytes").secret(),
        int64("session_lifetime_ms").since(1),
    ],
};

pub(super) static DESCRIBE_ACLS: Api = Api {
    key: 29,
    name: "DescribeAcls",
    versions: (0, 3),
    flexible: 2,
    request: &[
        resource_type("resource_type_filter"),
        resource_name("resource_name_filter"),
        int8("pattern_type_filter").since(1),
        text("principal_filter"),
        text("host_filter"),
        int8("operation"),
        int8("permission_type"),
    ],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        list("resources").of(&[
            resource_type("resource_type"),
            resource_name("resource_name"),
            int8("pattern_type").since(1),
            list("acls").of(&[text("principal"), text("host"), int8("operation"), int8("permission_type")]),
        ]),
    ],
};

pub(super) static CREATE_ACLS: Api = Api {
    key: 30,
    name: "CreateAcls",
    versions: (0, 3),
    flexible: 2,
    request: &[list("creations").of(&[
        resource_type("resource_type"),
        resource_name("resource_name"),
        int8("resource_pattern_type").since(1),
        text("principal"),
        text("host"),
        int8("operation"),
        int8("permission_type"),
    ])],
    response: &[int32("throttle_time_ms"), list("results").of(&[error("error_code"), text("error_message")])],
};

pub(super) static DELETE_ACLS: Api = Api {
    key: 31,
    name: "DeleteAcls",
    versions: (0, 3),
    flexible: 2,
    request: &[list("filters").of(&[
        resource_type("resource_type_filter"),
        resource_name("resource_name_filter"),
        int8("pattern_type_filter").since(1),
        text("principal_filter"),
        text("host_filter"),
        int8("operation"),
        int8("permission_type"),
    ])],
    response: &[
        int32("throttle_time_ms"),
        list("filter_results").of(&[
            error("error_code"),
            text("error_message"),
            list("matching_acls").of(&[
                error("error_code"),
                text("error_message"),
                resource_type("resource_type"),
                resource_name("resource_name"),
                int8("pattern_type").since(1),
                text("principal"),
                text("host"),
                int8("operation"),
                int8("permission_type"),
            ]),
        ]),
    ],
};

pub(super) static CREATE_DELEGATION_TOKEN: Api = Api {
    key: 38,
    name: "CreateDelegationToken",
    versions: (0, 3),
    flexible: 2,
    request: &[
        text("owner_principal_type").since(3),
        text("owner_principal_name").since(3),
        list("renewers").of(&[text("principal_type"), text("principal_name")]),
        int64("max_lifetime_ms"),
    ],
    response: &[
        error("error_code"),
        text("principal_type"),
        text("principal_name"),
        text("token_requester_principal_type").since(3),
        text("token_requester_principal_name").since(3),
        int64("issue_timestamp_ms"),
        int64("expiry_timestamp_ms"),
        int64("max_timestamp_ms"),
        text("token_id"),
        bytes("hmac").secret(),
        int32("throttle_time_ms"),
    ],
};

pub(super) static RENEW_DELEGATION_TOKEN: Api = Api {
    key: 39,
    name: "RenewDelegationToken",
    versions: (0, 2),
    flexible: 2,
    request: &[bytes("hmac").secret(), int64("renew_period_ms")],
    response: &[error("error_code"), int64("expiry_timestamp_ms"), int32("throttle_time_ms")],
};

pub(super) static EXPIRE_DELEGATION_TOKEN: Api = Api {
    key: 40,
    name: "ExpireDelegationToken",
    versions: (0, 2),
    flexible: 2,
    request: &[bytes("hmac").secret(), int64("expiry_time_period_ms")],
    response: &[error("error_code"), int64("expiry_timestamp_ms"), int32("throttle_time_ms")],
};

pub(super) static DESCRIBE_DELEGATION_TOKEN: Api = Api {
    key: 41,
    name: "DescribeDelegationToken",
    versions: (0, 3),
    flexible: 2,
    request: &[list("owners").of(&[text("principal_type"), text("principal_name")])],
    response: &[
        error("error_code"),
        list("tokens").of(&[
            text("principal_type"),
            text("principal_name"),
            text("token_requester_principal_type").since(3),
            text("token_requester_principal_name").since(3),
            int64("issue_timestamp"),
            int64("expiry_timestamp"),
            int64("max_timestamp"),
            text("token_id"),
            bytes("hmac").secret(),
            list("renewers").of(&[text("principal_type"), text("principal_name")]),
        ]),
        int32("throttle_time_ms"),
    ],
};

pub(super) static DESCRIBE_USER_SCRAM_CREDENTIALS: Api = Api {
    key: 50,
    name: "DescribeUserScramCredentials",
    versions: (0, 0),
    flexible: 0,
    request: &[list("users").of(&[text("name")])],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        list("results").of(&[
            text("user"),
            error("error_code"),
            text("error_message"),
            list("credential_infos").of(&[int8("mechanism"), int32("iterations")]),
        ]),
    ],
};

pub(super) static ALTER_USER_SCRAM_CREDENTIALS: Api = Api {
    key: 51,
    name: "AlterUserScramCredentials",
    versions: (0, 0),
    flexible: 0,
    request: &[
        list("deletions").of(&[text("name"), int8("mechanism")]),
        list("upsertions").of(&[
            text("name"),
            int8("mechanism"),
            int32("iterations"),
            bytes("salt").secret(),
            bytes("salted_password").secret(),
        ]),
    ],
    response: &[
        int32("throttle_time_ms"),
        list("results").of(&[text("user"), error("error_code"), text("error_message")]),
    ],
};
