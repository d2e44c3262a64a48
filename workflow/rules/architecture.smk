# From a trained supernet to architectures and their model definitions.


rule sample_architecture:
    input:
        supernet=f"{RESULTS}/search/{{search}}/supernet.pt",
        table=search_table,
    output:
        f"{RESULTS}/architectures/{{search}}.tsv",
    log:
        f"{RESULTS}/logs/sample_architecture/{{search}}.log",
    conda:
        "../envs/fbnet.yaml"
    params:
        code=code("sample_architecture.py"),
        options=[f"--{key}={value}" for key, value in CONFIG["sample"].items()],
    shell:
        "python -m sample_architecture --supernet {input.supernet:q} --table {input.table:q}"
        " {params.options:q} --name {wildcards.search} --out {output:q} --log {log:q}"


rule export_modeldef:
    input:
        architectures=f"{RESULTS}/architectures/{{search}}.tsv",
        supernet=f"{RESULTS}/search/{{search}}/supernet.pt",
    output:
        python=f"{RESULTS}/modeldef/{{search}}.py",
        json=f"{RESULTS}/modeldef/{{search}}.json",
    log:
        f"{RESULTS}/logs/export_modeldef/{{search}}.log",
    conda:
        "../envs/fbnet.yaml"
    params:
        code=code("export_modeldef.py"),
    shell:
        "python -m export_modeldef"
        " --architectures {input.architectures:q} --supernet {input.supernet:q} --out {output.python:q} --log {log:q}"
