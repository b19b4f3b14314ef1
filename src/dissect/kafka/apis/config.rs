//! Settings and quotas.

use crate::dissect::kafka::schema::{
    Api, Field, boolean, error, float64, int8, int32, list, resource_name, resource_type, text,
};

/// What became of each resource.
const ALTERED: &[Field] = &[
    int32("throttle_time_ms"),
    list("responses").of(&[
        error("error_code"),
        text("error_message"),
        resource_type("resource_type"),
        resource_name("resource_name"),
    ]),
];

pub(super) static DESCRIBE_CONFIGS: Api = Api {
    key: 32,
    name: "DescribeConfigs",
    versions: (0, 4),
    flexible: 4,
    request: &[
        list("resources").of(&[
            resource_type("resource_type"),
            resource_name("resource_name"),
            text("configuration_keys").many(),
        ]),
        boolean("include_synonyms").since(1),
        boolean("include_documentation").since(3),
    ],
    response: &[
        int32("throttle_time_ms"),
        list("results").of(&[
            error("error_code"),
            text("error_message"),
            resource_type("resource_type"),
            resource_name("resource_name"),
            list("configs").of(&[
                text("name"),
                text("value"),
                boolean("read_only"),
                boolean("is_default").until(0),
                int8("config_source").since(1),
                boolean("is_sensitive"),
                list("synonyms").since(1).of(&[text("name"), text("value"), int8("source")]),
                int8("config_type").since(3),
                text("documentation").since(3),
            ]),
        ]),
    ],
};

pub(super) static ALTER_CONFIGS: Api = Api {
    key: 33,
    name: "AlterConfigs",
    versions: (0, 2),
    flexible: 2,
    request: &[
        list("resources").of(&[
            resource_type("resource_type"),
            resource_name("resource_name"),
            list("configs").of(&[text("name"), text("value")]),
        ]),
        boolean("validate_only"),
    ],
    response: ALTERED,
};

pub(super) static INCREMENTAL_ALTER_CONFIGS: Api = Api {
    key: 44,
    name: "IncrementalAlterConfigs",
    versions: (0, 1),
    flexible: 1,
    request: &[
        list("resources").of(&[
            resource_type("resource_type"),
            resource_name("resource_name"),
            list("configs").of(&[text("name"), int8("config_operation"), text("value")]),
        ]),
        boolean("validate_only"),
    ],
    response: ALTERED,
};

pub(super) static DESCRIBE_CLIENT_QUOTAS: Api = Api {
    key: 48,
    name: "DescribeClientQuotas",
    versions: (0, 1),
    flexible: 1,
    request: &[list("components").of(&[text("entity_type"), int8("match_type"), text("match")]), boolean("strict")],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        text("error_message"),
        list("entries").of(&[
            list("entity").of(&[text("entity_type"), text("entity_name")]),
            list("values").of(&[text("key"), float64("value")]),
        ]),
    ],
};

pub(super) static ALTER_CLIENT_QUOTAS: Api = Api {
    key: 49,
    name: "AlterClientQuotas",
    versions: (0, 1),
    flexible: 1,
    request: &[
        list("entries").of(&[
            list("entity").of(&[text("entity_type"), text("entity_name")]),
            list("ops").of(&[text("key"), float64("value"), boolean("remove")]),
        ]),
        boolean("validate_only"),
    ],
    response: &[
        int32("throttle_time_ms"),
        list("entries").of(&[
            error("error_code"),
            text("error_message"),
            list("entity").of(&[text("entity_type"), text("entity_name")]),
        ]),
    ],
};

pub(super) static LIST_CONFIG_RESOURCES: Api = Api {
    key: 74,
    name: "ListConfigResources",
    versions: (0, 1),
    flexible: 0,
    request: &[int8("resource_types").many().since(1)],
    response: &[
        int32("throttle_time_ms"),
        error("error_code"),
        list("config_resources").of(&[resource_name("resource_name"), resource_type("resource_type").since(1)]),
    ],
};
