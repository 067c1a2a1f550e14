"""What `drupe doctor` looks at: one file a theme, each giving findings."""
