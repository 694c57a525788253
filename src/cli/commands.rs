//! The commands, and which function does each.

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::ambassador::{self, ExplainArgs, FlowsArgs, HostAmbassadorArgs, TapArgs};
use super::context::{self, Target};
use super::daemon::{DaemonArgs, DaemonOptions};
use super::failure::{DAEMON_FAILED, Failure};
use super::host::Host;
use super::{
    archive, cert, changes, commit, completion, compose, cp, dashboard, disk, doctor, events, exec,
    history, images, import, inspect, lifecycle, login, logs, map, mesh, network, node, pause,
    peer, port, prune, ps, pull, push, registry, registry_migrate, remove, run, search, service,
    stack, start, stats, stored, swarm, system, task, token, top, tunnel, update, volume, wait,
    why,
};
use crate::client::Client;

/// What nuncio can do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(flatten)]
    Client(ClientCommand),
    #[command(flatten)]
    Own(OwnCommand),
}

/// Commands that a daemon does.
#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    #[command(flatten)]
    Container(ContainerCommand),
    /// List containers
    Ps(ps::PsArgs),
    /// Manage containers
    #[command(name = "container", arg_required_else_help = true)]
    ContainerGroup(ContainerGroup),
    #[command(flatten)]
    Image(ImageCommand),
    /// List images
    Images(images::ListArgs),
    /// Remove images
    Rmi(remove::RmiArgs),
    /// Manage images
    #[command(name = "image", arg_required_else_help = true)]
    ImageGroup(ImageGroup),
    /// Show all there is to know of containers, images or networks, as JSON
    Inspect(inspect::InspectArgs),
    /// Manage networks
    #[command(arg_required_else_help = true)]
    Network(network::NetworkArgs),
    /// Manage volumes
    #[command(arg_required_else_help = true)]
    Volume(volume::VolumeArgs),
    /// Manage the hosts
    #[command(arg_required_else_help = true)]
    Node(node::NodeArgs),
    /// Look at the registry, by which the hosts know of each other
    #[command(arg_required_else_help = true)]
    Registry(registry::RegistryArgs),
    /// Show services, and manage those that nuncio does not run
    #[command(arg_required_else_help = true)]
    Service(service::ServiceArgs),
    /// Manage stacks: what compose files describe, on all of the mesh
    #[command(arg_required_else_help = true)]
    Stack(stack::StackArgs),
    /// Manage tasks: what services come to on nodes
    #[command(arg_required_else_help = true)]
    Task(task::TaskArgs),
    /// Bring up what a compose file describes, on this daemon's host
    #[command(arg_required_else_help = true)]
    Compose(compose::ComposeArgs),
    /// Docker's words for making, joining and leaving a mesh
    #[command(arg_required_else_help = true)]
    Swarm(swarm::SwarmArgs),
    /// Manage secrets, which services' containers have as files
    #[command(arg_required_else_help = true)]
    Secret(stored::SecretArgs),
    /// Manage configs, which services' containers have as files
    #[command(arg_required_else_help = true)]
    Config(stored::ConfigArgs),
    /// Manage what is lent to other meshes and borrowed from them
    #[command(arg_required_else_help = true)]
    Peer(peer::PeerArgs),
    /// Manage certificates of operators, who use the API over TCP
    #[command(arg_required_else_help = true)]
    Cert(cert::CertArgs),
    /// Manage join tokens, by which other hosts are let into the mesh
    #[command(arg_required_else_help = true)]
    Token(token::TokenArgs),
    /// Manage what the daemon keeps
    #[command(arg_required_else_help = true)]
    System(SystemGroup),
    /// Manage builds, of which there are none
    #[command(arg_required_else_help = true)]
    Builder(BuilderGroup),
    /// Prove who you are to a registry, now and from now on
    Login(login::LoginArgs),
    /// Look for images at a registry
    Search(search::SearchArgs),
    /// Show what the daemon says of itself
    Info(system::InfoArgs),
    /// Show what happens, as it happens
    Events(events::EventsArgs),
    /// Tell where the way from one container to another breaks
    Why(why::WhyArgs),
    /// Show hosts, containers and services, and what passes between them
    Map(map::MapArgs),
    /// Show the map, live, in a browser
    Dashboard(dashboard::DashboardArgs),
}

/// Commands that do without a daemon.
#[derive(Debug, Subcommand)]
pub(super) enum OwnCommand {
    /// Forget who you are to a registry
    Logout(login::LogoutArgs),
    /// Manage contexts: daemons by name
    #[command(arg_required_else_help = true)]
    Context(context::ContextArgs),
    /// Show the versions of client and daemon
    Version(system::VersionArgs),
    /// Make a mesh, whose first node is this host
    Init(mesh::InitArgs),
    /// Join a mesh by a token
    Join(mesh::JoinArgs),
    /// Leave the mesh
    Leave(mesh::LeaveArgs),
    /// Serve this host
    Daemon(Box<DaemonArgs>),
    /// Forward TCP and UDP
    Ambassador(Box<HostAmbassadorArgs>),
    /// Carry encrypted networks for the daemon of this host
    #[command(hide = true)]
    Tunnel(tunnel::TunnelArgs),
    /// List the flows that an ambassador carries, or end them
    Flows(Box<FlowsArgs>),
    /// Tell where a name leads now, and why
    Explain(ExplainArgs),
    /// Show flows as they begin and end
    Tap(TapArgs),
    /// Tell whether this machine has what nuncio needs
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// Commands on containers, which `nuncio container` has too.
#[derive(Debug, Subcommand)]
pub(super) enum ContainerCommand {
    /// Create a container from an image, and start it
    Run(Box<run::RunArgs>),
    /// Create a container without starting it
    Create(Box<run::CreateArgs>),
    /// Start containers
    Start(start::StartArgs),
    /// Stop containers: the stop signal, then SIGKILL
    Stop(lifecycle::StopArgs),
    /// Stop and start containers
    Restart(lifecycle::RestartArgs),
    /// Stop the processes of containers where they stand
    Pause(pause::PauseArgs),
    /// Let the processes of paused containers go on
    Unpause(pause::PauseArgs),
    /// Change the limits and the restart policy of containers
    Update(update::UpdateArgs),
    /// Show what containers take of the machine
    Stats(stats::StatsArgs),
    /// Send a signal to containers
    Kill(lifecycle::KillArgs),
    /// Remove containers
    Rm(remove::RmArgs),
    /// Show what a container printed
    Logs(logs::LogsArgs),
    /// Attach to the terminal or the streams of a container
    Attach(start::AttachArgs),
    /// Run a command in a container
    Exec(exec::ExecArgs),
    /// Wait for containers to end, and print their exit statuses
    Wait(wait::WaitArgs),
    /// List the published ports of a container
    Port(port::PortArgs),
    /// Copy files between a container and this machine
    Cp(cp::CpArgs),
    /// List what a container has changed in its image's files
    Diff(changes::DiffArgs),
    /// Fetch the root file system of a container as an archive
    Export(changes::ExportArgs),
    /// Give a container another name
    Rename(lifecycle::RenameArgs),
    /// Make an image of a container
    Commit(commit::CommitArgs),
    /// List the processes of a container
    Top(top::TopArgs),
}

/// Commands on images, which `nuncio image` has too.
#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// Fetch an image from a registry
    Pull(pull::PullArgs),
    /// Send an image to a registry
    Push(push::PushArgs),
    /// Make an image of a root file system's archive
    Import(import::ImportArgs),
    /// Take images from an archive
    Load(archive::LoadArgs),
    /// Write images into an archive
    Save(archive::SaveArgs),
    /// Give an image another name
    Tag(images::TagArgs),
    /// Show how an image was made
    History(history::HistoryArgs),
}

/// `nuncio container`.
#[derive(Args, Debug)]
pub(super) struct ContainerGroup {
    #[command(subcommand)]
    command: GroupedContainerCommand,
}

#[derive(Debug, Subcommand)]
enum GroupedContainerCommand {
    #[command(flatten)]
    Same(ContainerCommand),
    /// List containers
    #[command(name = "ls", visible_aliases = ["list", "ps"])]
    Ls(ps::PsArgs),
    /// Show all there is to know of containers, as JSON
    Inspect(inspect::ContainerInspectArgs),
    /// Remove all containers that do not run
    Prune(prune::ContainerPruneArgs),
}

/// `nuncio builder`.
#[derive(Args, Debug)]
pub(super) struct BuilderGroup {
    #[command(subcommand)]
    command: BuilderCommand,
}

#[derive(Debug, Subcommand)]
enum BuilderCommand {
    /// Remove what builds left, which is nothing
    Prune(prune::BuilderPruneArgs),
}

/// `nuncio image`.
#[derive(Args, Debug)]
pub(super) struct ImageGroup {
    #[command(subcommand)]
    command: GroupedImageCommand,
}

#[derive(Debug, Subcommand)]
enum GroupedImageCommand {
    #[command(flatten)]
    Same(ImageCommand),
    /// List images
    #[command(name = "ls", visible_alias = "list")]
    Ls(images::ListArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(remove::RmiArgs),
    /// Show all there is to know of images, as JSON
    Inspect(inspect::ImageInspectArgs),
    /// Remove images that nothing needs
    Prune(prune::ImagePruneArgs),
}

/// `nuncio system`.
#[derive(Args, Debug)]
pub(super) struct SystemGroup {
    #[command(subcommand)]
    command: SystemCommand,
}

#[derive(Debug, Subcommand)]
enum SystemCommand {
    /// Show what takes room on the disk
    Df(disk::DfArgs),
    /// Remove what nothing needs
    Prune(prune::SystemPruneArgs),
    /// Show what the daemon says of itself
    Info(system::InfoArgs),
    /// Show what happens, as it happens
    Events(events::EventsArgs),
}

impl Command {
    pub(super) async fn run(self, target: &Target) -> Result<u8, Failure> {
        match self {
            Self::Own(command) => command.run(target).await,
            // Between two registries, by whoever reaches both.
            Self::Client(ClientCommand::Registry(registry::RegistryArgs {
                command: registry::RegistryCommand::Migrate(args),
            })) => Ok(registry_migrate::run(args).await?),
            // A mesh is made, joined and left while no daemon runs.
            Self::Client(ClientCommand::Swarm(args)) if args.is_offline() => {
                Ok(swarm::run_offline(args.command).await?)
            }
            Self::Client(command) => {
                let code = if command.is_run() || matches!(command, ClientCommand::Why(_)) {
                    DAEMON_FAILED
                } else {
                    1
                };
                let host = choose(target).map_err(|error| Failure::new(code, error))?;
                let client = Client::connect(host)
                    .await
                    .map_err(|error| Failure::new(code, error))?;
                command.run(&client, target).await
            }
        }
    }
}

impl OwnCommand {
    async fn run(self, target: &Target) -> Result<u8, Failure> {
        let code = match self {
            Self::Init(args) => mesh::init(args).await?,
            Self::Join(args) => mesh::join(args).await?,
            Self::Leave(args) => mesh::leave(&args)?,
            Self::Daemon(args) => serve(*args, target).await?,
            Self::Ambassador(args) => ambassador::serve(*args).await?,
            Self::Tunnel(args) => tunnel::run(args).await?,
            Self::Flows(args) => ambassador::flows(*args, target.named()?).await?,
            Self::Explain(args) => ambassador::explain(args, target.named()?).await?,
            Self::Tap(args) => ambassador::tap(args, target.named()?).await?,
            Self::Doctor(args) => doctor::run(args).await?,
            Self::Completion(args) => completion::run(args)?,
            Self::Logout(args) => login::logout(&args)?,
            Self::Context(args) => context::run(args, target).await?,
            Self::Version(args) => system::version(args, target).await?,
        };
        Ok(code)
    }
}

impl ClientCommand {
    /// Whether the exit status is that of a container, and others must be told from it.
    fn is_run(&self) -> bool {
        let (Self::Container(command)
        | Self::ContainerGroup(ContainerGroup {
            command: GroupedContainerCommand::Same(command),
        })) = self
        else {
            return false;
        };
        matches!(command, ContainerCommand::Run(_))
    }

    async fn run(self, client: &Client, target: &Target) -> Result<u8, Failure> {
        let code = match self {
            Self::Container(command) => command.run(client).await?,
            Self::ContainerGroup(group) => match group.command {
                GroupedContainerCommand::Same(command) => command.run(client).await?,
                GroupedContainerCommand::Ls(args) => ps::run(args, client).await?,
                GroupedContainerCommand::Inspect(args) => inspect::containers(args, client).await?,
                GroupedContainerCommand::Prune(args) => prune::containers(args, client).await?,
            },
            Self::Image(command) => command.run(client).await?,
            Self::ImageGroup(group) => match group.command {
                GroupedImageCommand::Same(command) => command.run(client).await?,
                GroupedImageCommand::Ls(args) => images::list(args, client).await?,
                GroupedImageCommand::Rm(args) => remove::images(args, client).await?,
                GroupedImageCommand::Inspect(args) => inspect::images(args, client).await?,
                GroupedImageCommand::Prune(args) => prune::images(args, client).await?,
            },
            Self::Ps(args) => ps::run(args, client).await?,
            Self::Images(args) => images::list(args, client).await?,
            Self::Rmi(args) => remove::images(args, client).await?,
            Self::Inspect(args) => inspect::run(args, client).await?,
            Self::Network(args) => network::run(args, client).await?,
            Self::Volume(args) => volume::run(args, client).await?,
            Self::Node(args) => node::run(args, client).await?,
            Self::Registry(args) => registry::run(args, client).await?,
            Self::Peer(args) => peer::run(args, client).await?,
            Self::Service(args) => service::run(args, client).await?,
            Self::Stack(args) => stack::run(args, client).await?,
            Self::Task(args) => task::run(args, client).await?,
            Self::Compose(args) => compose::run(args, client).await?,
            Self::Swarm(args) => match args.command {
                swarm::SwarmCommand::JoinToken(args) => swarm::join_token(args, client).await?,
                command => swarm::run_offline(command).await?,
            },
            Self::Secret(args) => stored::secrets(args, client).await?,
            Self::Config(args) => stored::configs(args, client).await?,
            Self::Cert(args) => cert::run(args, client).await?,
            Self::Token(args) => token::run(args, client).await?,
            Self::Builder(group) => {
                let BuilderCommand::Prune(args) = group.command;
                prune::builds(args, client).await?
            }
            Self::Login(args) => login::login(args, client).await?,
            Self::Search(args) => search::run(args, client).await?,
            Self::Info(args) => system::info(args, client, target).await?,
            Self::System(group) => match group.command {
                SystemCommand::Df(args) => disk::df(args, client).await?,
                SystemCommand::Prune(args) => prune::everything(args, client).await?,
                SystemCommand::Info(args) => system::info(args, client, target).await?,
                SystemCommand::Events(args) => events::run(args, client).await?,
            },
            Self::Events(args) => events::run(args, client).await?,
            Self::Why(args) => return why::run(args, client).await,
            Self::Map(args) => map::run(args, client).await?,
            Self::Dashboard(args) => dashboard::run(args, client).await?,
        };
        Ok(code)
    }
}

impl ContainerCommand {
    async fn run(self, client: &Client) -> Result<u8, Failure> {
        let code = match self {
            Self::Run(args) => return run::run(*args, client).await,
            Self::Exec(args) => return exec::run(args, client).await,
            Self::Create(args) => run::create(*args, client).await?,
            Self::Start(args) => start::start(args, client).await?,
            Self::Stop(args) => lifecycle::stop(args, client).await?,
            Self::Restart(args) => lifecycle::restart(args, client).await?,
            Self::Kill(args) => lifecycle::kill(args, client).await?,
            Self::Pause(args) => pause::pause(args, client).await?,
            Self::Unpause(args) => pause::unpause(args, client).await?,
            Self::Update(args) => update::update(args, client).await?,
            Self::Stats(args) => stats::run(args, client).await?,
            Self::Rm(args) => remove::containers(args, client).await?,
            Self::Logs(args) => logs::run(args, client).await?,
            Self::Attach(args) => start::attach(args, client).await?,
            Self::Wait(args) => wait::wait(args, client).await?,
            Self::Port(args) => port::run(args, client).await?,
            Self::Cp(args) => cp::run(args, client).await?,
            Self::Diff(args) => changes::diff(args, client).await?,
            Self::Export(args) => changes::export(args, client).await?,
            Self::Rename(args) => lifecycle::rename(args, client).await?,
            Self::Commit(args) => commit::run(args, client).await?,
            Self::Top(args) => top::run(args, client).await?,
        };
        Ok(code)
    }
}

impl ImageCommand {
    async fn run(self, client: &Client) -> anyhow::Result<u8> {
        match self {
            Self::Pull(args) => pull::run(args, client).await,
            Self::Push(args) => push::run(args, client).await,
            Self::Import(args) => import::run(args, client).await,
            Self::Load(args) => archive::load(args, client).await,
            Self::Save(args) => archive::save(args, client).await,
            Self::Tag(args) => images::tag(args, client).await,
            Self::History(args) => history::run(args, client).await,
        }
    }
}

fn choose(target: &Target) -> anyhow::Result<Host> {
    target.host().context("find the daemon")
}

async fn serve(args: DaemonArgs, target: &Target) -> anyhow::Result<u8> {
    if let Some(host) = &target.host {
        anyhow::bail!(
            "-H before `daemon` is the address to connect to: to serve there, say `nuncio daemon -H {host}`"
        );
    }
    doctor::require_root("nuncio daemon")?;
    let options = DaemonOptions::try_from(args)?;
    crate::daemon::run(options).await?;
    Ok(0)
}
