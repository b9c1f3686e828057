//! `meshctl incidents`: the faults of late, and how long each step took.

use std::process::ExitCode;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use mesh_model::{BrokerId, Incident, IncidentKind, IncidentList, IncidentPhase};

use crate::ask;
use crate::find::NetworkArgs;

/// Flags of `meshctl incidents`.
#[derive(Debug, clap::Args)]
pub struct IncidentsArgs {
    /// Show the steps of this one
    id: Option<String>,

    #[command(flatten)]
    network: NetworkArgs,

    /// Print mesh-health's answer as it is
    #[arg(long)]
    json: bool,
}

/// Shows all incidents that mesh-health remembers, or one.
pub async fn run(args: IncidentsArgs) -> anyhow::Result<ExitCode> {
    let config = args.network.load()?;
    let path = match &args.id {
        Some(id) => format!("/v1/incidents/{id}"),
        None => "/v1/incidents".to_owned(),
    };
    let body = ask::get(config.health.listen, &path).await?;
    let text = match (args.json, args.id) {
        (true, _) => body,
        (false, Some(_)) => one(&serde_json::from_str(&body).context("the answer is not an incident")?),
        (false, None) => all(&serde_json::from_str(&body).context("the answer is no list of incidents")?),
    };
    println!("{}", text.trim_end());
    Ok(ExitCode::SUCCESS)
}

fn all(list: &IncidentList) -> String {
    if list.incidents.is_empty() {
        return "no incident is remembered".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "INCIDENT",
        "BEGAN",
        "WHAT",
        "TO",
        "NOTICED MS",
        "SWITCHED MS",
        "MOVED MS",
        "ENDED",
        "REASON",
    ]);
    for index in 4..7 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for incident in &list.incidents {
        table.add_row([
            incident.id.clone(),
            incident.began_at.strftime("%F %T").to_string(),
            what(incident),
            moved_to(incident).map_or("-".to_owned(), ToString::to_string),
            after(incident, IncidentPhase::Confirmed),
            after(incident, IncidentPhase::GenerationConfirmed),
            after(incident, IncidentPhase::SessionsCut),
            incident
                .ended_at
                .map_or("no".to_owned(), |end| end.strftime("%F %T").to_string()),
            incident.reason.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}

/// What failed.
fn what(incident: &Incident) -> String {
    let name = |id: &Option<BrokerId>| id.as_ref().map_or("?", BrokerId::as_str).to_owned();
    match incident.kind {
        IncidentKind::Broker => name(&incident.broker),
        IncidentKind::Link => format!("{} → {}", name(&incident.from), name(&incident.to)),
        IncidentKind::Balancer => "balancer".to_owned(),
    }
}

/// Where the clients of a failed primary were sent.
fn moved_to(incident: &Incident) -> Option<&BrokerId> {
    incident
        .to
        .as_ref()
        .filter(|_| incident.kind == IncidentKind::Broker)
}

/// Milliseconds from the first sign to `phase`.
fn after(incident: &Incident, phase: IncidentPhase) -> String {
    let step = incident.phases.iter().find(|step| step.phase == phase);
    step.map_or("-".to_owned(), |step| format!("{:.0}", step.elapsed_ms))
}

fn one(incident: &Incident) -> String {
    let mut text = format!("{}: {}", incident.id, what(incident));
    if let Some(reason) = &incident.reason {
        text += &format!(", {reason}");
    }
    if let (Some(to), Some(generation)) = (moved_to(incident), incident.generation) {
        text += &format!("; clients were sent to {to} with generation {generation}");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["AFTER MS", "AT", "STEP"]);
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for step in &incident.phases {
        table.add_row([
            format!("{:.1}", step.elapsed_ms),
            step.at.strftime("%F %T%.3f").to_string(),
            step.phase.to_string(),
        ]);
    }
    format!("{text}\n\n{table}")
}
