"""What `shop.proto` says, in words that need no compiler."""
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, timestamp_pb2

FILE = """
name: "shop.proto" package: "shop.v1" syntax: "proto3" dependency: "google/protobuf/timestamp.proto"
enum_type { name: "Colour" value { name: "COLOUR_UNKNOWN" number: 0 } value { name: "COLOUR_RED" number: 1 } }
message_type { name: "Query" field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type {
  name: "Item"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "price_cents" number: 2 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "colour" number: 3 type: TYPE_ENUM type_name: ".shop.v1.Colour" label: LABEL_OPTIONAL }
  field { name: "stock" number: 4 type: TYPE_MESSAGE type_name: ".shop.v1.Item.StockEntry" label: LABEL_REPEATED }
  field { name: "since" number: 5 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL }
  nested_type {
    name: "StockEntry"
    field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_UINT32 label: LABEL_OPTIONAL }
    options { map_entry: true }
  }
}
"""

pool = descriptor_pool.DescriptorPool()
for file in descriptor_pb2.FileDescriptorProto.FromString(timestamp_pb2.DESCRIPTOR.serialized_pb), \
        text_format.Parse(FILE, descriptor_pb2.FileDescriptorProto()):
    pool.Add(file)
factory = message_factory.MessageFactory(pool)
Query, Item = (factory.GetPrototype(pool.FindMessageTypeByName(f"shop.v1.{name}")) for name in ("Query", "Item"))


def item(name, cents):
    item = Item(name=name, price_cents=cents, colour=1)
    item.stock["north"] = 3
    item.since.seconds, item.since.nanos = 1767323045, 250_000_000
    return item
