//! Transactions.

use anyhow::Result;
use etcd_client::{
    Compare, CompareOp, DeleteOptions, Error, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
};

use crate::backend::Backend;

on_both!(
    comparisons,
    branches,
    nested,
    refused_whole,
    one_writer_wins
);

async fn comparisons(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let lease = client.lease_grant(60, None).await?.id();
    client.put("a", "m", None).await?; // 2
    client
        .put("a", "n", Some(PutOptions::new().with_lease(lease)))
        .await?; // 3
    client.put("a/1", "x", None).await?; // 4
    client.put("a/2", "y", None).await?; // 5
    let (eq, ne, lt, gt) = (
        CompareOp::Equal,
        CompareOp::NotEqual,
        CompareOp::Less,
        CompareOp::Greater,
    );
    let cases = [
        (Compare::version("a", eq, 2), true),
        (Compare::version("a", gt, 2), false),
        (Compare::version("none", eq, 0), true),
        (Compare::create_revision("a", eq, 2), true),
        (Compare::create_revision("none", eq, 0), true),
        (Compare::create_revision("none", ne, 0), false),
        (Compare::mod_revision("a", lt, 4), true),
        (Compare::mod_revision("a", lt, 3), false),
        (Compare::value("a", eq, "n"), true),
        (Compare::value("a", gt, "m"), true),
        (Compare::value("a", ne, "n"), false),
        (Compare::value("none", ne, "n"), false),
        (Compare::value("none", eq, ""), false),
        (Compare::lease("a", eq, lease), true),
        (Compare::lease("a/1", eq, 0), true),
        (Compare::mod_revision("a/", lt, 6).with_prefix(), true),
        (Compare::mod_revision("a/", lt, 5).with_prefix(), false),
        (Compare::create_revision("none/", eq, 0).with_prefix(), true),
        (Compare::create_revision("a/", eq, 0).with_prefix(), false),
        (Compare::mod_revision("none/", lt, 1).with_prefix(), true),
    ];
    for (i, (compare, expected)) in cases.into_iter().enumerate() {
        let response = client.txn(Txn::new().when([compare.clone()])).await?;
        assert_eq!(response.succeeded(), expected, "case {i}: {compare:?}");
        assert_eq!(
            response.header().unwrap().revision(),
            5,
            "nothing was written"
        );
    }
    Ok(())
}

async fn branches(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let txn = || {
        Txn::new()
            .when([Compare::version("a", CompareOp::Equal, 0)])
            .and_then([
                TxnOp::put("a", "1", None),
                TxnOp::put("b", "1", None),
                TxnOp::get("a", None),
            ])
            .or_else([
                TxnOp::get("a", Some(GetOptions::new().with_from_key())),
                TxnOp::delete("a", Some(DeleteOptions::new().with_from_key())),
                TxnOp::get("a", Some(GetOptions::new().with_from_key())),
            ])
    };
    let first = client.txn(txn()).await?;
    assert!(first.succeeded());
    assert_eq!(
        first.header().unwrap().revision(),
        2,
        "one revision for all"
    );
    let [_, _, TxnOpResponse::Get(get)] = &first.op_responses()[..] else {
        panic!("{first:?}")
    };
    assert_eq!(get.kvs()[0].value(), b"1", "it reads its own writes");
    let both = client
        .get("a", Some(GetOptions::new().with_from_key()))
        .await?;
    assert!(both.kvs().iter().all(|kv| kv.mod_revision() == 2));

    let second = client.txn(txn()).await?;
    assert!(!second.succeeded());
    let [
        TxnOpResponse::Get(before),
        TxnOpResponse::Delete(delete),
        TxnOpResponse::Get(after),
    ] = &second.op_responses()[..]
    else {
        panic!("{second:?}")
    };
    assert_eq!((before.count(), delete.deleted(), after.count()), (2, 2, 0));
    assert_eq!(second.header().unwrap().revision(), 3);
    Ok(())
}

async fn nested(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    // The comparison within sees the state before the whole.
    let inner = Txn::new()
        .when([Compare::version("a", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("b", "unseen", None)])
        .or_else([TxnOp::put("b", "seen", None)]);
    let txn = Txn::new().and_then([TxnOp::put("a", "1", None), TxnOp::txn(inner)]);
    let response = client.txn(txn).await?;
    assert_eq!(response.header().unwrap().revision(), 2);
    let [_, TxnOpResponse::Txn(inner)] = &response.op_responses()[..] else {
        panic!()
    };
    assert!(inner.succeeded());
    assert_eq!(client.get("b", None).await?.kvs()[0].value(), b"unseen");
    // Only one of the two branches within can run, so both may write what the other does.
    let inner = Txn::new()
        .and_then([TxnOp::put("c", "1", None)])
        .or_else([TxnOp::put("c", "2", None)]);
    let response = client.txn(Txn::new().and_then([TxnOp::txn(inner)])).await?;
    let [TxnOpResponse::Txn(inner)] = &response.op_responses()[..] else {
        panic!()
    };
    let [TxnOpResponse::Put(put)] = &inner.op_responses()[..] else {
        panic!()
    };
    assert_eq!(put.header().unwrap().revision(), 3);
    Ok(())
}

async fn refused_whole(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let put = |key: &str| TxnOp::put(key, "", None);
    let with_prefix = Some(DeleteOptions::new().with_prefix());
    let leased = TxnOp::put("c", "", Some(PutOptions::new().with_lease(99)));
    let many: Vec<TxnOp> = (0..129).map(|i| put(&format!("k{i}"))).collect();
    let nest = |keys: &[&str]| {
        let ops: Vec<TxnOp> = keys.iter().map(|key| put(key)).collect();
        TxnOp::txn(Txn::new().and_then(ops))
    };
    let cases = [
        (vec![put("a"), put("a")], "duplicate key"),
        (
            vec![put("ab"), TxnOp::delete("a", with_prefix)],
            "duplicate key",
        ),
        (
            vec![put("a"), TxnOp::txn(Txn::new().and_then([put("a")]))],
            "duplicate key",
        ),
        (vec![put("a"), leased], "lease not found"),
        (vec![put("a"), put("")], "key is not provided"),
        (many, "too many operations"),
        (
            vec![put("a"); 127]
                .into_iter()
                .chain([nest(&["b", "c"])])
                .collect(),
            "too many operations",
        ),
        (vec![nest(&["a"]), nest(&["a"])], "duplicate key"),
    ];
    for (ops, expected) in cases {
        let refused = client.txn(Txn::new().and_then(ops)).await.unwrap_err();
        let Error::GRpcStatus(status) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            status.message().contains(expected),
            "{expected}: {status:?}"
        );
    }
    let all = client
        .get("", Some(GetOptions::new().with_all_keys()))
        .await?;
    assert_eq!((all.count(), all.header().unwrap().revision()), (0, 1));
    Ok(())
}

async fn one_writer_wins(backend: Backend) -> Result<()> {
    let client = backend.client().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..40 {
        let mut client = client.clone();
        tasks.spawn(async move {
            let free = Compare::create_revision("lock", CompareOp::Equal, 0);
            let take = TxnOp::put("lock", i.to_string(), None);
            let count = TxnOp::put(format!("seen/{i}"), "", None);
            client
                .txn(Txn::new().when([free]).and_then([take, count]))
                .await
        });
    }
    let mut won = 0;
    while let Some(response) = tasks.join_next().await {
        won += usize::from(response??.succeeded());
    }
    let mut client = client;
    let seen = client
        .get("seen/", Some(GetOptions::new().with_prefix()))
        .await?
        .count();
    assert_eq!((won, seen), (1, 1));
    Ok(())
}
