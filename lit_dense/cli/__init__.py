"""The command line ``lit-dense``, based on LightningCLI."""
