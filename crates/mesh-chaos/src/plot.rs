//! Outages over time, as SVG.

use std::collections::BTreeMap;
use std::time::Duration;

use plotters::prelude::*;

use crate::book::Felt;
use crate::schedule::Kind;

const SIZE: (u32, u32) = (960, 480);

/// Points that are nearer to each other than so many pixels look like one.
const CELL: f64 = 2.0;

/// Below that nobody would see anything: the least of a logarithmic axis.
const FLOOR_MS: f64 = 1.0;

/// A plot of the clients' outages, by the time and kind of their faults.
///
/// # Errors
///
/// If it cannot be drawn.
pub fn outages(faults: &[Felt]) -> anyhow::Result<String> {
    let mut svg = String::new();
    let last = faults
        .iter()
        .map(|fault| fault.at)
        .max()
        .unwrap_or(Duration::ZERO);
    let end = last.as_secs_f64().max(1.0) * 1.02;
    let highest = faults
        .iter()
        .flat_map(Felt::outages)
        .map(ms)
        .fold(1000.0, f64::max);
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(
                "Time from a fault until each client that it cut off was served again",
                ("sans-serif", 18),
            )
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..end, (FLOOR_MS..highest * 2.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("seconds since the start")
            .y_desc("milliseconds")
            .draw()?;
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            let of_kind = faults.iter().filter(|fault| fault.kind == kind);
            let points =
                of_kind.flat_map(|fault| fault.outages().map(|outage| (fault.at.as_secs_f64(), ms(outage))));
            let points = apart(points, end, highest);
            if points.is_empty() {
                continue;
            }
            let colour = Palette99::pick(place).to_rgba();
            chart
                .draw_series(
                    points
                        .into_iter()
                        .map(|point| Circle::new(point, 3, colour.filled())),
                )?
                .label(kind.name())
                .legend(move |at| Circle::new(at, 4, colour.filled()));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}

/// One of those points that would be drawn on top of each other: an hour has a hundred thousand.
fn apart(points: impl Iterator<Item = (f64, f64)>, end: f64, highest: f64) -> Vec<(f64, f64)> {
    let cell = |(at, ms): (f64, f64)| {
        let across = at / end * f64::from(SIZE.0) / CELL;
        let up = ms.ln() / highest.ln() * f64::from(SIZE.1) / CELL;
        (across as u32, up as u32)
    };
    let by_cell: BTreeMap<_, _> = points.map(|point| (cell(point), point)).collect();
    by_cell.into_values().collect()
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).max(FLOOR_MS)
}

impl Felt {
    /// The outages of all clients.
    fn outages(&self) -> impl Iterator<Item = Duration> + '_ {
        self.publishers.iter().chain(&self.subscribers).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_points_and_none_is_a_plot_too() {
        let felt = |kind, outages: &[u64]| Felt {
            at: Duration::from_secs(5),
            kind,
            broker: None,
            on_primary: true,
            mended: None,
            publishers: outages.iter().copied().map(Duration::from_millis).collect(),
            subscribers: Vec::new(),
            longest_wait: Duration::ZERO,
        };
        let empty = outages(&[]).unwrap();
        let svg = outages(&[felt(Kind::Kill, &[10, 200]), felt(Kind::Hang, &[1200])]).unwrap();
        let circles = |svg: &str| svg.matches("<circle").count();
        assert_eq!(circles(&empty), 0);
        // Three points, and one in the legend for each kind.
        assert_eq!(circles(&svg), 5);
        // What cannot be told apart is drawn once.
        let many = outages(&[felt(Kind::Kill, &[500; 400])]).unwrap();
        assert_eq!(circles(&many), 2);
        assert!(svg.contains("kill") && svg.contains("hang") && !svg.contains("balancer"));
    }
}
