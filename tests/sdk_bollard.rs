//! bollard, the library for Rust, on nuncio's socket.

mod support;

use std::collections::HashMap;
use std::future::Future;
use std::io::Read as _;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerStateStatusEnum, ContainerUpdateBody,
    EndpointIpamConfig, EndpointSettings, EventMessageTypeEnum, HealthConfig, HealthStatusEnum,
    HostConfig, Ipam, IpamConfig, Mount, MountTypeEnum, NetworkConnectRequest,
    NetworkCreateRequest, NetworkDisconnectRequest, NetworkingConfig, PortBinding,
    VolumeCreateOptions,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CommitContainerOptionsBuilder, CreateContainerOptionsBuilder,
    CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder, EventsOptionsBuilder,
    ImportImageOptionsBuilder, InspectContainerOptions, InspectNetworkOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptions,
    ListNetworksOptions, ListVolumesOptions, LogsOptionsBuilder, PruneContainersOptions,
    PruneImagesOptions, PruneNetworksOptions, PruneVolumesOptions, PushImageOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions, RemoveVolumeOptions,
    RenameContainerOptionsBuilder, ResizeExecOptionsBuilder, RestartContainerOptions,
    StartContainerOptions, StatsOptionsBuilder, StopContainerOptionsBuilder,
    TagImageOptionsBuilder, TopOptionsBuilder, UploadToContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker, body_full};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use support::{Host, Image, SOON, plain_registry, single};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

type Outcome = Result<(), Error>;

/// Runs a test against a host's daemon.
#[track_caller]
fn with<F: Future<Output = Outcome>>(host: &Host, test: impl FnOnce(Docker) -> F) {
    let socket = host.exec_root().join("nuncio.sock");
    let socket = socket.to_str().expect("a path in UTF-8");
    let docker = Docker::connect_with_unix(socket, 60, API_DEFAULT_VERSION).expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let outcome = timeout(3 * SOON, test(docker)).await;
        outcome.expect("it takes too long").expect("no call fails");
    });
}

/// A container of busybox.
fn busybox(words: &[&str]) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some("busybox".to_owned()),
        cmd: Some(owned(words)),
        host_config: Some(HostConfig {
            init: Some(true),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

async fn run(docker: &Docker, name: &str, body: ContainerCreateBody) -> Result<String, Error> {
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let made = docker.create_container(Some(options), body).await?;
    docker
        .start_container(name, None::<StartContainerOptions>)
        .await?;
    Ok(made.id)
}

async fn remove(docker: &Docker, name: &str) -> Outcome {
    let options = RemoveContainerOptionsBuilder::default();
    let options = options.force(true).v(true).build();
    docker.remove_container(name, Some(options)).await
}

/// The exit status of a container; bollard makes an error of what is not 0.
async fn end(docker: &Docker, name: &str) -> Result<i64, Error> {
    let options = WaitContainerOptionsBuilder::default();
    let options = options.condition("not-running").build();
    let mut ends = Box::pin(docker.wait_container(name, Some(options)));
    match ends.next().await.expect("it ends") {
        Ok(ended) => Ok(ended.status_code),
        Err(Error::DockerContainerWaitError { code, .. }) => Ok(code),
        Err(error) => Err(error),
    }
}

async fn text(stream: impl Stream<Item = Result<LogOutput, Error>>) -> Result<String, Error> {
    let parts: Vec<LogOutput> = stream.try_collect().await?;
    Ok(parts.iter().map(ToString::to_string).collect())
}

/// What a command in a container says.
async fn exec(docker: &Docker, name: &str, words: &[&str]) -> Result<(i64, String), Error> {
    let config = CreateExecOptions {
        cmd: Some(words.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    };
    let id = docker.create_exec(name, config).await?.id;
    let said = match docker.start_exec(&id, None).await? {
        StartExecResults::Attached { output, .. } => text(output).await?,
        StartExecResults::Detached => unreachable!("it was not asked to"),
    };
    let code = docker.inspect_exec(&id).await?.exit_code;
    Ok((code.expect("it has ended"), said))
}

/// The status of an answer that refuses something.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> (u16, String) {
    match answer {
        Err(Error::DockerResponseServerError {
            status_code,
            message,
        }) => (status_code, message),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_daemon_tells_of_itself() {
    let host = single(&[Image::Busybox]);
    with(&host, async |docker| {
        assert_eq!(docker.ping().await?, "OK");
        let version = docker.version().await?;
        assert_eq!(version.api_version.as_deref(), Some("1.49"));
        let info = docker.info().await?;
        assert_eq!((info.images, info.containers), (Some(1), Some(0)));
        let usage = docker.df(None).await?;
        assert_eq!(usage.images.map(|images| images.len()), Some(1));
        let docker = docker.negotiate_version().await?;
        assert_eq!(docker.client_version().to_string(), "1.49");
        Ok(())
    });
}

#[test]
fn images_are_named_carried_and_fetched() {
    let host = single(&[Image::Busybox]);
    let _registry = plain_registry(&host);
    with(&host, async |docker| {
        let busybox = docker.inspect_image("busybox").await?;
        assert_eq!(busybox.repo_tags, Some(owned(&["busybox:latest"])));
        assert_eq!(docker.image_history("busybox").await?.len(), 1);
        let name = "127.0.0.1:5000/team/busybox";
        let tag = TagImageOptionsBuilder::default().repo(name).tag("7");
        docker.tag_image("busybox", Some(tag.build())).await?;
        let options = PushImageOptionsBuilder::default().tag("7").build();
        let pushed = docker.push_image(name, Some(options), None);
        let pushed: Vec<_> = pushed.try_collect().await?;
        assert!(pushed.iter().all(|step| step.error_detail.is_none()));
        let tagged = format!("{name}:7");
        let remote = docker.inspect_registry_image(&tagged, None).await?;
        assert_eq!(remote.platforms.len(), 1);
        assert_eq!(remote.platforms[0].os.as_deref(), Some("linux"));
        let removed = docker.remove_image(&tagged, None::<RemoveImageOptions>, None);
        assert!(removed.await?.iter().any(|item| item.untagged.is_some()));
        let options = CreateImageOptionsBuilder::default();
        let options = options.from_image(name).tag("7").build();
        let pulled = docker.create_image(Some(options), None, None);
        let pulled: Vec<_> = pulled.try_collect().await?;
        let last = pulled.last().and_then(|step| step.status.as_deref());
        assert!(last.is_some_and(|last| last.starts_with("Status: ")));
        assert_eq!(docker.inspect_image(&tagged).await?.id, busybox.id);

        let saved: Vec<_> = docker.export_image(&tagged).try_collect().await?;
        let saved = saved.concat();
        docker
            .remove_image(&tagged, None::<RemoveImageOptions>, None)
            .await?;
        let options = ImportImageOptionsBuilder::default().build();
        let loaded = docker.import_image(options, body_full(saved.into()), None);
        let loaded: Vec<_> = loaded.try_collect().await?;
        assert!(format!("{loaded:?}").contains(&tagged), "{loaded:?}");
        assert_eq!(docker.inspect_image(&tagged).await?.id, busybox.id);
        let listed = docker.list_images(None::<ListImagesOptions>).await?;
        assert_eq!(listed.len(), 1);
        assert!(listed[0].repo_tags.contains(&tagged));
        docker.prune_images(None::<PruneImagesOptions>).await?;
        let (status, message) = refused(docker.inspect_image("nosuch").await);
        assert_eq!(status, 404);
        assert_eq!(message, "No such image: nosuch:latest");
        Ok(())
    });
}

#[test]
fn a_container_lives_from_create_to_remove() {
    let host = single(&[Image::Busybox]);
    with(&host, async |docker| {
        let script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done";
        let mut body = busybox(&["sh", "-c", script]);
        body.labels = Some(HashMap::from([("tier".to_owned(), "front".to_owned())]));
        body.exposed_ports = Some(HashMap::from([("80/tcp".to_owned(), HashMap::new())]));
        let port = PortBinding {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: None,
        };
        body.host_config = Some(HostConfig {
            port_bindings: Some(HashMap::from([("80/tcp".to_owned(), Some(vec![port]))])),
            memory: Some(64 << 20),
            ..HostConfig::default()
        });
        let id = run(&docker, "web", body.clone()).await?;
        let shown = docker
            .inspect_container("web", None::<InspectContainerOptions>)
            .await?;
        assert_eq!(shown.id.as_ref(), Some(&id));
        let state = shown.state.and_then(|state| state.status);
        assert_eq!(state, Some(ContainerStateStatusEnum::RUNNING));
        let filters = HashMap::from([("label", vec!["tier=front"])]);
        let options = ListContainersOptionsBuilder::default().filters(&filters);
        let listed = docker.list_containers(Some(options.build())).await?;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].ports.as_ref().map(Vec::len), Some(1));

        let options = LogsOptionsBuilder::default().follow(true).stdout(true);
        let mut logs = Box::pin(docker.logs("web", Some(options.build())));
        let first = logs.try_next().await?.expect("a line");
        assert_eq!(first.to_string(), "up\n");
        assert_eq!(exec(&docker, "web", &["sh", "-c", "exit 9"]).await?.0, 9);
        assert_eq!(exec(&docker, "web", &["echo", "hi"]).await?.1, "hi\n");
        let options = TopOptionsBuilder::default().ps_args("-o pid,comm").build();
        let top = docker.top_processes("web", Some(options)).await?;
        assert_eq!(top.titles.map(|titles| titles.len()), Some(2));
        let options = StatsOptionsBuilder::default().stream(false).build();
        let stats = Box::pin(docker.stats("web", Some(options)))
            .try_next()
            .await?;
        let memory = stats.and_then(|stats| stats.memory_stats);
        assert_eq!(memory.and_then(|memory| memory.limit), Some(64 << 20));
        let update = ContainerUpdateBody {
            memory: Some(32 << 20),
            ..ContainerUpdateBody::default()
        };
        docker.update_container("web", update).await?;
        docker.pause_container("web").await?;
        docker.unpause_container("web").await?;
        let options = RenameContainerOptionsBuilder::default().name("site");
        docker.rename_container("web", options.build()).await?;
        docker
            .restart_container("site", None::<RestartContainerOptions>)
            .await?;
        let options = StopContainerOptionsBuilder::default().t(10).build();
        docker.stop_container("site", Some(options)).await?;
        assert_eq!(end(&docker, "site").await?, 5);
        docker
            .start_container("site", None::<StartContainerOptions>)
            .await?;
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL");
        docker.kill_container("site", Some(options.build())).await?;
        assert_eq!(end(&docker, "site").await?, 137);
        let options = CreateContainerOptionsBuilder::default().name("site");
        let again = docker.create_container(Some(options.build()), body).await;
        assert_eq!(refused(again).0, 409);
        let pruned = docker
            .prune_containers(None::<PruneContainersOptions>)
            .await?;
        assert_eq!(pruned.containers_deleted, Some(vec![id]));
        Ok(())
    });
}

#[test]
fn streams_are_followed_and_fed() {
    let host = single(&[Image::Busybox]);
    with(&host, async |docker| {
        let mut body = busybox(&["cat"]);
        (body.open_stdin, body.stdin_once) = (Some(true), Some(true));
        let options = CreateContainerOptionsBuilder::default().name("echo");
        docker.create_container(Some(options.build()), body).await?;
        let options = AttachContainerOptionsBuilder::default();
        let options = options.stdin(true).stdout(true).stream(true).build();
        let mut attached = docker.attach_container("echo", Some(options)).await?;
        docker
            .start_container("echo", None::<StartContainerOptions>)
            .await?;
        attached.input.write_all(b"hello\n").await?;
        let heard = attached.output.try_next().await?;
        assert_eq!(heard.map(|heard| heard.to_string()), Some("hello\n".into()));
        attached.input.shutdown().await?;
        assert_eq!(text(attached.output).await?, "");
        assert_eq!(end(&docker, "echo").await?, 0);
        remove(&docker, "echo").await?;

        run(&docker, "box", busybox(&["sleep", "1000"])).await?;
        let config = CreateExecOptions {
            cmd: Some(vec!["sh"]),
            tty: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            ..CreateExecOptions::default()
        };
        let id = docker.create_exec("box", config).await?.id;
        let StartExecResults::Attached { output, mut input } = docker.start_exec(&id, None).await?
        else {
            unreachable!("it was not asked to be detached")
        };
        let size = ResizeExecOptionsBuilder::default().h(20).w(90).build();
        docker.resize_exec(&id, size).await?;
        input.write_all(b"stty size; exit 4\n").await?;
        let said = text(output).await?;
        assert!(said.contains("20 90"), "{said}");
        assert_eq!(docker.inspect_exec(&id).await?.exit_code, Some(4));
        remove(&docker, "box").await
    });
}

#[test]
fn files_go_in_and_come_out() {
    let host = single(&[Image::Busybox]);
    with(&host, async |docker| {
        run(&docker, "box", busybox(&["sleep", "1000"])).await?;
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        archive.append_data(&mut header, "greeting", &b"hello"[..])?;
        let archive = archive.into_inner()?;
        let options = UploadToContainerOptionsBuilder::default().path("/tmp");
        docker
            .upload_to_container("box", Some(options.build()), body_full(archive.into()))
            .await?;
        let options = DownloadFromContainerOptionsBuilder::default();
        let options = options.path("/tmp/greeting").build();
        let parts = docker.download_from_container("box", Some(options));
        let archive = parts.try_collect::<Vec<_>>().await?.concat();
        let mut archive = tar::Archive::new(&archive[..]);
        let mut content = String::new();
        let mut entry = archive.entries()?.next().expect("an entry")?;
        entry.read_to_string(&mut content)?;
        assert_eq!(content, "hello");
        let changes = docker.container_changes("box").await?.unwrap_or_default();
        assert!(changes.iter().any(|change| change.path == "/tmp/greeting"));
        let options = CommitContainerOptionsBuilder::default();
        let options = options.container("box").repo("mine").tag("1");
        let config = ContainerConfig {
            cmd: Some(owned(&["cat", "/tmp/greeting"])),
            ..ContainerConfig::default()
        };
        docker.commit_container(options.build(), config).await?;
        remove(&docker, "box").await?;
        let mut body = busybox(&[]);
        (body.image, body.cmd) = (Some("mine:1".to_owned()), None);
        run(&docker, "reader", body).await?;
        assert_eq!(end(&docker, "reader").await?, 0);
        let options = LogsOptionsBuilder::default().stdout(true).build();
        assert_eq!(text(docker.logs("reader", Some(options))).await?, "hello");
        remove(&docker, "reader").await
    });
}

#[test]
fn volumes_and_networks_are_shared() {
    let host = single(&[Image::Busybox]);
    with(&host, async |docker| {
        let volume = VolumeCreateOptions {
            name: Some("data".to_owned()),
            ..VolumeCreateOptions::default()
        };
        assert_eq!(docker.create_volume(volume).await?.name, "data");
        let network = |name: &str, subnet: Option<&str>| NetworkCreateRequest {
            name: name.to_owned(),
            ipam: subnet.map(|subnet| Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(subnet.to_owned()),
                    ..IpamConfig::default()
                }]),
                ..Ipam::default()
            }),
            ..NetworkCreateRequest::default()
        };
        docker
            .create_network(network("front", Some("10.99.7.0/24")))
            .await?;
        docker.create_network(network("back", None)).await?;

        let endpoint = EndpointSettings {
            aliases: Some(owned(&["db"])),
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: Some("10.99.7.9".to_owned()),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        };
        let mut body = busybox(&["sh", "-c", "echo kept >/data/x; exec sleep 1000"]);
        body.host_config = Some(HostConfig {
            mounts: Some(vec![Mount {
                target: Some("/data".to_owned()),
                source: Some("data".to_owned()),
                typ: Some(MountTypeEnum::VOLUME),
                ..Mount::default()
            }]),
            network_mode: Some("front".to_owned()),
            ..HostConfig::default()
        });
        body.networking_config = Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([("front".to_owned(), endpoint)])),
        });
        run(&docker, "server", body).await?;
        run(&docker, "other", busybox(&["sleep", "1000"])).await?;
        let join = NetworkConnectRequest {
            container: Some("other".to_owned()),
            endpoint_config: Some(EndpointSettings::default()),
        };
        docker.connect_network("front", join).await?;
        let (code, said) = exec(&docker, "other", &["nslookup", "db"]).await?;
        assert!(code == 0 && said.contains("10.99.7.9"), "{said}");
        let shown = docker
            .inspect_network("front", None::<InspectNetworkOptions>)
            .await?;
        assert_eq!(shown.containers.map(|inside| inside.len()), Some(2));
        let leave = NetworkDisconnectRequest {
            container: Some("other".to_owned()),
            force: Some(false),
        };
        docker.disconnect_network("front", leave.clone()).await?;
        let again = docker.disconnect_network("front", leave).await;
        assert_eq!(refused(again).0, 403);
        let used = docker.remove_volume("data", None::<RemoveVolumeOptions>);
        assert_eq!(refused(used.await).0, 409);
        for name in ["server", "other"] {
            remove(&docker, name).await?;
        }
        docker.remove_network("front").await?;
        let pruned = docker.prune_networks(None::<PruneNetworksOptions>).await?;
        assert_eq!(pruned.networks_deleted, Some(owned(&["back"])));
        let left = docker.list_networks(None::<ListNetworksOptions>).await?;
        assert_eq!(left.len(), 3);
        docker.prune_volumes(None::<PruneVolumesOptions>).await?;
        docker
            .remove_volume("data", None::<RemoveVolumeOptions>)
            .await?;
        let left = docker.list_volumes(None::<ListVolumesOptions>).await?;
        assert_eq!(left.volumes.unwrap_or_default(), []);
        Ok(())
    });
}

#[test]
fn events_and_health_are_told() {
    let host = single(&[Image::Busybox]);
    with(&host, async |docker| {
        let mut body = busybox(&["sleep", "1000"]);
        body.healthcheck = Some(HealthConfig {
            test: Some(owned(&["CMD-SHELL", "test -e /well"])),
            interval: Some(50_000_000),
            ..HealthConfig::default()
        });
        run(&docker, "box", body).await?;
        exec(&docker, "box", &["touch", "/well"]).await?;
        let health = async || {
            let shown = docker.inspect_container("box", None::<InspectContainerOptions>);
            let state = shown.await.ok().and_then(|shown| shown.state);
            state
                .and_then(|state| state.health)
                .and_then(|health| health.status)
        };
        while health().await != Some(HealthStatusEnum::HEALTHY) {
            sleep(SOON / 3000).await;
        }
        remove(&docker, "box").await?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("after 1970").as_secs() + 1;
        let filters = HashMap::from([("container", vec!["box"])]);
        let options = EventsOptionsBuilder::default().filters(&filters);
        let options = options.since("1").until(&now.to_string()).build();
        let told: Vec<_> = docker.events(Some(options)).try_collect().await?;
        assert!(
            told.iter()
                .all(|event| event.typ == Some(EventMessageTypeEnum::CONTAINER))
        );
        let actions: Vec<&str> = told
            .iter()
            .filter_map(|event| event.action.as_deref())
            .filter(|action| !action.starts_with("exec"))
            .collect();
        let expected = [
            "create",
            "start",
            "health_status: healthy",
            "kill",
            "die",
            "destroy",
        ];
        assert_eq!(actions, expected);
        Ok(())
    });
}
