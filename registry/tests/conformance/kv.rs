//! Putting, reading and deleting keys.

use anyhow::Result;
use etcd_client::{
    CompactionOptions, DeleteOptions, Error, GetOptions, PutOptions, SortOrder, SortTarget,
};

use crate::backend::Backend;

on_both!(
    revisions_and_versions,
    ranges,
    older_revisions,
    errors,
    restart
);

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> (i32, String) {
    match result.unwrap_err() {
        Error::GRpcStatus(status) => (status.code().into(), status.message().to_owned()),
        other => panic!("{other:?}"),
    }
}

async fn revisions_and_versions(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let first = client
        .put("a", "1", None)
        .await?
        .header()
        .unwrap()
        .revision();
    assert_eq!(first, 2, "an empty store is at revision 1");
    let put = client
        .put("a", "2", Some(PutOptions::new().with_prev_key()))
        .await?;
    assert_eq!(put.prev_key().unwrap().value(), b"1");
    let get = client.get("a", None).await?;
    let kv = &get.kvs()[0];
    assert_eq!(
        (kv.create_revision(), kv.mod_revision(), kv.version()),
        (2, 3, 2)
    );
    assert_eq!(get.header().unwrap().revision(), 3);

    let options = DeleteOptions::new().with_prev_key();
    let delete = client.delete("a", Some(options.clone())).await?;
    assert_eq!(
        (delete.deleted(), delete.header().unwrap().revision()),
        (1, 4)
    );
    assert_eq!(delete.prev_kvs()[0].value(), b"2");
    let delete = client.delete("a", Some(options)).await?;
    assert_eq!(
        (delete.deleted(), delete.header().unwrap().revision()),
        (0, 4)
    );

    client.put("a", "3", None).await?;
    let kv = client.get("a", None).await?.take_kvs().remove(0);
    assert_eq!(
        (kv.create_revision(), kv.mod_revision(), kv.version()),
        (5, 5, 1)
    );
    let kept = PutOptions::new().with_ignore_value();
    client.put("a", "", Some(kept)).await?;
    let kv = client.get("a", None).await?.take_kvs().remove(0);
    assert_eq!((kv.value(), kv.version()), (&b"3"[..], 2));
    Ok(())
}

async fn ranges(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    for key in ["k/3", "k/1", "k/2", "k0", "j"] {
        client.put(key, format!("of {key}"), None).await?;
    }
    let keys = async |options: GetOptions, key: &str| -> Result<(Vec<String>, i64, bool)> {
        let mut client = backend.client().await?;
        let get = client.get(key, Some(options)).await?;
        let keys = get
            .kvs()
            .iter()
            .map(|kv| kv.key_str().unwrap().to_owned())
            .collect();
        Ok((keys, get.count(), get.more()))
    };
    let all = |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    let prefix = || GetOptions::new().with_prefix();
    assert_eq!(
        keys(prefix(), "k/").await?,
        (all(&["k/1", "k/2", "k/3"]), 3, false)
    );
    assert_eq!(
        keys(prefix().with_limit(2), "k/").await?,
        (all(&["k/1", "k/2"]), 3, true)
    );
    assert_eq!(
        keys(prefix().with_limit(3), "k/").await?,
        (all(&["k/1", "k/2", "k/3"]), 3, false)
    );
    assert_eq!(
        keys(prefix().with_count_only(), "k/").await?,
        (Vec::new(), 3, false)
    );
    assert_eq!(
        keys(GetOptions::new().with_range("k/3"), "k/1").await?.0,
        ["k/1", "k/2"]
    );
    assert_eq!(
        keys(GetOptions::new().with_range("a"), "k").await?,
        (Vec::new(), 0, false)
    );
    assert_eq!(
        keys(GetOptions::new().with_from_key(), "k/3").await?.0,
        ["k/3", "k0"]
    );
    assert_eq!(keys(GetOptions::new().with_all_keys(), "").await?.1, 5);
    let sorted = |target, order| prefix().with_sort(target, order);
    let newest = keys(sorted(SortTarget::Mod, SortOrder::Descend), "k/").await?;
    assert_eq!(newest.0, ["k/2", "k/1", "k/3"]);
    let alike = keys(sorted(SortTarget::Version, SortOrder::Descend), "k/").await?;
    assert_eq!(
        alike.0,
        ["k/1", "k/2", "k/3"],
        "what is alike stays in order"
    );
    let some = keys(prefix().with_min_mod_revision(3).with_limit(1), "k/").await?;
    assert_eq!(some, (all(&["k/1"]), 3, true), "all are counted");
    let last = keys(
        sorted(SortTarget::Value, SortOrder::Descend).with_limit(1),
        "k/",
    )
    .await?;
    assert_eq!(last, (all(&["k/3"]), 3, true));
    assert_eq!(
        keys(prefix().with_min_mod_revision(3), "k/").await?.0,
        ["k/1", "k/2"]
    );
    assert_eq!(
        keys(prefix().with_max_create_revision(2), "k/").await?.0,
        ["k/3"]
    );
    let named = client
        .get("k/1", Some(GetOptions::new().with_keys_only()))
        .await?;
    assert_eq!(
        (named.kvs()[0].value(), named.kvs()[0].mod_revision()),
        (&b""[..], 3)
    );

    let deleted = client
        .delete("k/", Some(DeleteOptions::new().with_prefix()))
        .await?;
    assert_eq!(
        (deleted.deleted(), deleted.header().unwrap().revision()),
        (3, 7)
    );
    assert_eq!(
        keys(GetOptions::new().with_all_keys(), "").await?.0,
        ["j", "k0"]
    );
    Ok(())
}

async fn older_revisions(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    client.put("a", "1", None).await?; // 2
    client.put("b", "1", None).await?; // 3
    client.put("a", "2", None).await?; // 4
    client.delete("b", None).await?; // 5
    client.put("b", "3", None).await?; // 6
    let expected: [(i64, &[(&str, &str)]); 6] = [
        (1, &[]),
        (2, &[("a", "1")]),
        (3, &[("a", "1"), ("b", "1")]),
        (4, &[("a", "2"), ("b", "1")]),
        (5, &[("a", "2")]),
        (6, &[("a", "2"), ("b", "3")]),
    ];
    let at = |revision| Some(GetOptions::new().with_all_keys().with_revision(revision));
    for (revision, values) in expected {
        let get = client.get("", at(revision)).await?;
        let found: Vec<_> = get
            .kvs()
            .iter()
            .map(|kv| (kv.key_str().unwrap(), kv.value_str().unwrap()))
            .collect();
        assert_eq!(found, values, "at revision {revision}");
        assert_eq!(get.header().unwrap().revision(), 6);
        let first = GetOptions::new().with_all_keys().with_revision(revision);
        let get = client.get("", Some(first.with_limit(1))).await?;
        assert_eq!(get.count(), i64::try_from(values.len())?);
        assert_eq!(get.more(), values.len() > 1, "at revision {revision}");
    }
    client
        .compact(4, Some(CompactionOptions::new().with_physical()))
        .await?;
    assert_eq!(client.get("", at(4)).await?.count(), 2);
    let (status, message) = code(client.get("", at(3)).await);
    assert_eq!(status, 11, "{message}");
    assert!(
        message.contains("required revision has been compacted"),
        "{message}"
    );
    let (status, message) = code(client.get("", at(7)).await);
    assert_eq!(status, 11, "{message}");
    assert!(message.contains("future revision"), "{message}");
    assert_eq!(code(client.compact(4, None).await).0, 11);
    assert_eq!(code(client.compact(99, None).await).0, 11);
    Ok(())
}

async fn errors(backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    let (status, message) = code(client.put("", "x", None).await);
    assert_eq!(
        (status, message.as_str()),
        (3, "etcdserver: key is not provided")
    );
    let unknown = Some(PutOptions::new().with_lease(77));
    let (status, message) = code(client.put("a", "x", unknown).await);
    assert_eq!(
        (status, message.as_str()),
        (5, "etcdserver: requested lease not found")
    );
    let absent = Some(PutOptions::new().with_ignore_value());
    assert_eq!(code(client.put("a", "", absent).await).0, 3);
    assert_eq!(client.get("a", None).await?.header().unwrap().revision(), 1);
    Ok(())
}

async fn restart(mut backend: Backend) -> Result<()> {
    let mut client = backend.client().await?;
    for i in 0..50 {
        client.put(format!("k{i:02}"), i.to_string(), None).await?;
    }
    client.delete("k07", None).await?;
    backend.down().await;
    backend.up().await?;
    let mut client = backend.client().await?;
    let get = client
        .get("k", Some(GetOptions::new().with_prefix()))
        .await?;
    assert_eq!(get.header().unwrap().revision(), 52);
    assert_eq!(get.count(), 49);
    assert!(get.kvs().iter().all(|kv| kv.version() == 1));
    assert_eq!(
        client
            .put("k07", "", None)
            .await?
            .header()
            .unwrap()
            .revision(),
        53
    );
    Ok(())
}
