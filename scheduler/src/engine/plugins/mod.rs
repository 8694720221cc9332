//! The plugins, one file each, in the order in which filters are asked.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod pod_topology_spread;
mod resources_fit;
mod scheduling_gates;
mod taint_toleration;

use super::framework::Plugin;

/// Every plugin of the engine.
pub const PLUGINS: &[Plugin] = &[
    scheduling_gates::PLUGIN,
    node_unschedulable::PLUGIN,
    node_name::PLUGIN,
    taint_toleration::PLUGIN,
    node_affinity::PLUGIN,
    node_ports::PLUGIN,
    resources_fit::PLUGIN,
    pod_topology_spread::PLUGIN,
    inter_pod_affinity::PLUGIN,
    balanced_allocation::PLUGIN,
    image_locality::PLUGIN,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_has_a_name_of_its_own_and_a_filter_has_events() {
        let mut names: Vec<_> = PLUGINS.iter().map(|plugin| plugin.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PLUGINS.len());
        for plugin in PLUGINS {
            assert!(
                plugin.filter.is_none() || !plugin.events.is_empty(),
                "{} can never be retried",
                plugin.name
            );
        }
    }
}
