"""The job: settings, model, training, export, publishing and the command line."""
