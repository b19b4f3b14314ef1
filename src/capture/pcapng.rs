//! Writes pcapng blocks: the agent's wire format and the plugin's save format. No dependency.
