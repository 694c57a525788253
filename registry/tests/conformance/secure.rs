//! Three etcds that know their clients by certificate, user and password, and go away one after the other.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use etcd_client::{Certificate, Client, Identity, Permission, PermissionType, TlsOptions};
use nuncio_registry::{ConnectOptions, Mirror, Password, Registry, ServiceRecord, TlsFiles, User};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::backend::{PATIENCE, soon};
use crate::cluster::Cluster;

/// An authority's certificate, and one with its key that it vouches for, as files.
struct Authority {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn make(dir: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = vec![Ipv4Addr::LOCALHOST.to_string()];
        let certificate = CertificateParams::new(names)?.signed_by(&key, &ca)?;
        let write = |kind: &str, pem: String| -> Result<PathBuf> {
            let path = dir.join(format!("{name}-{kind}.pem"));
            fs::write(&path, pem)?;
            Ok(path)
        };
        Ok(Self {
            ca: write("ca", ca.pem())?,
            certificate: write("certificate", certificate.pem())?,
            key: write("key", key.serialize_pem())?,
        })
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            ca: Some(self.ca.clone()),
            certificate: Some(self.certificate.clone()),
            key: Some(self.key.clone()),
        }
    }
}

fn named(name: &str) -> ServiceRecord {
    ServiceRecord::new(name, Vec::new())
}

fn user(password: &str) -> Option<User> {
    Some(User {
        name: "host".to_owned(),
        password: Password::new(password),
    })
}

async fn refused(options: &ConnectOptions) -> String {
    match Registry::connect(options).await {
        Ok(_) => "let in".to_owned(),
        Err(error) => format!("{:#}", anyhow::Error::from(error)),
    }
}

/// Starts a cluster with a user `host`, whose password is `secret`, for all keys of nuncio.
async fn start(dir: &Path, ours: &Authority) -> Result<Cluster> {
    let path = |path: &Path| path.display().to_string();
    let args = vec![
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={}", path(&ours.ca)),
        format!("--cert-file={}", path(&ours.certificate)),
        format!("--key-file={}", path(&ours.key)),
    ];
    let mut cluster = Cluster::new(dir, 3)?.with_tls(args);
    cluster.start()?;
    let identity = Identity::from_pem(fs::read(&ours.certificate)?, fs::read(&ours.key)?);
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(fs::read(&ours.ca)?))
        .identity(identity);
    let options = etcd_client::ConnectOptions::new().with_tls(tls);
    let mut admin = Client::connect(cluster.endpoints(), Some(options)).await?;
    let begun = Instant::now();
    while let Err(error) = admin.get("up", None).await {
        cluster.check()?;
        ensure!(
            begun.elapsed() < PATIENCE,
            "the cluster does not come up: {error}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    admin.user_add("root", "of all", None).await?;
    admin.user_grant_role("root", "root").await?;
    admin.user_add("host", "secret", None).await?;
    admin.role_add("host").await?;
    let all = Permission::new(PermissionType::Readwrite, "/nuncio/").with_prefix();
    admin.role_grant_permission("host", all).await?;
    admin.user_grant_role("host", "host").await?;
    admin.auth_enable().await?;
    Ok(cluster)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_go_away_one_after_the_other() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (ours, other) = (
        Authority::make(dir.path(), "ours")?,
        Authority::make(dir.path(), "other")?,
    );
    let mut cluster = start(dir.path(), &ours).await?;
    let options = ConnectOptions {
        endpoints: cluster.endpoints(),
        tls: ours.files(),
        user: user("secret"),
        ..ConnectOptions::default()
    };
    check_refusals(&options, &ours, &other).await;

    let registry = Registry::connect(&options).await?;
    let mirror = Mirror::start(registry.clone(), None);
    for round in 0..3 {
        cluster.kill(round).await?;
        let name = format!("s{round}");
        let service = named(&name);
        let begun = Instant::now();
        while let Err(error) = registry.put_service(&service).await {
            ensure!(
                begun.elapsed() < PATIENCE,
                "two of three do not answer: {error}"
            );
        }
        let mut catalog = mirror.catalog();
        soon(
            "the mirror to know",
            catalog.wait_for(|it| it.services.contains_key(&name)),
        )
        .await??;
        let status = registry.status().await;
        let down: Vec<bool> = status.iter().map(|member| member.health.is_err()).collect();
        assert_eq!(down, [0, 1, 2].map(|i| i == round), "{status:?}");
        let leaders = status
            .iter()
            .filter_map(|member| member.health.as_ref().ok()?.leader);
        assert_eq!(leaders.filter(|&leads| leads).count(), 1, "{status:?}");
        cluster.start_one(round)?;
        let begun = Instant::now();
        while registry
            .status()
            .await
            .iter()
            .any(|member| member.health.is_err())
        {
            ensure!(
                begun.elapsed() < PATIENCE,
                "member {round} does not come back"
            );
        }
    }
    let status = registry.status().await;
    let health: Vec<_> = status
        .iter()
        .filter_map(|member| member.health.as_ref().ok())
        .collect();
    let mut names: Vec<&str> = health.iter().map(|health| health.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["m0", "m1", "m2"]);

    // One that was not there when this began is logged in to once it is.
    cluster.kill_all().await?;
    let lazy = Registry::connect_lazy(&options).await?;
    assert!(lazy.put_service(&named("late")).await.is_err());
    cluster.start()?;
    let begun = Instant::now();
    while let Err(error) = lazy.put_service(&named("late")).await {
        ensure!(
            begun.elapsed() < PATIENCE,
            "it is not logged in to: {error}"
        );
    }
    Ok(())
}

async fn check_refusals(options: &ConnectOptions, ours: &Authority, other: &Authority) {
    let with = |tls: TlsFiles, user: Option<User>| ConnectOptions {
        tls,
        user,
        ..options.clone()
    };
    let mut half = ours.files();
    half.key = None;
    let mut swapped = ours.files();
    swapped.ca = Some(ours.key.clone());
    let mut stranger = other.files();
    stranger.ca = ours.files().ca;
    let mut missing = ours.files();
    missing.ca = Some("/nowhere/ca.pem".into());
    let plain = ConnectOptions {
        endpoints: vec!["http://127.0.0.1:1".to_owned()],
        ..options.clone()
    };
    assert!(!format!("{options:?}").contains("secret"));
    for (options, expected) in [
        (
            with(other.files(), user("secret")),
            "invalid peer certificate",
        ),
        (with(stranger, user("secret")), "log in to the registry"),
        (
            with(TlsFiles::default(), user("secret")),
            "invalid peer certificate",
        ),
        (with(half, user("secret")), "goes with its key"),
        (with(swapped, user("secret")), "is no certificate in PEM"),
        (with(missing, user("secret")), "read /nowhere/ca.pem"),
        (
            with(ours.files(), user("wrong")),
            "authentication failed, invalid user ID or password",
        ),
        (with(ours.files(), None), "etcdserver: "),
        (plain, "reached without TLS: write https://"),
    ] {
        let told = refused(&options).await;
        assert!(told.contains(expected), "{expected}: {told}");
    }
}
