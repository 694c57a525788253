//! The etcd v3 messages and service traits, generated from `proto/`.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated code; etcd's own documentation is in the .proto files"
)]

pub(crate) mod authpb {
    tonic::include_proto!("authpb");
}

pub(crate) mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub(crate) mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub(crate) mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

pub(crate) mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
