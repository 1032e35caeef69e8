# shellcheck shell=bash
# What the launcher says to the workflow, and how it ends. Sourced by run.sh.

MAX_SUMMARY=1048576 # bytes; the runner drops a longer summary whole
HIDDEN=(GITHUB_OUTPUT GITHUB_ENV GITHUB_PATH GITHUB_STATE GITHUB_TOKEN GH_TOKEN ACTIONS_RUNTIME_TOKEN
    ACTIONS_ID_TOKEN_REQUEST_TOKEN ACTIONS_ID_TOKEN_REQUEST_URL)

begin() { # folders; what the step may use and the tool may not
    trap unexpected EXIT
    workspace=${GITHUB_WORKSPACE:-$PWD}
    temp=${RUNNER_TEMP:-}
    [[ -n $temp ]] || own_temp=$(mktemp -d)
    temp=${temp:-$own_temp}
    real_output=${GITHUB_OUTPUT:-}
    real_summary=${GITHUB_STEP_SUMMARY:-}
    token=${GITHUB_TOKEN:-}
    unset "${HIDDEN[@]}"
    mkdir -p "$temp"
    work=$(mktemp -d "$temp/quant-verify.XXXXXX")
    mkdir "$work/home" "$work/tmp"
    export GITHUB_WORKSPACE=$workspace RUNNER_TEMP=$temp
    export GITHUB_STEP_SUMMARY=$work/summary.md QUANT_VERIFY_OUTPUTS=$work/outputs
}

in_workflow() {
    [[ ${GITHUB_ACTIONS:-} == true ]]
}

harmless() { # TEXT: on one line, with nothing in it that a runner would obey
    local text=${1//[[:cntrl:]]/ } old='##[' new='## ['
    printf '%s' "${text//"$old"/$new}"
}

encoded() { # TEXT: as the message of a workflow command
    printf '%s' "${1//"%"/%25}"
}

say() { # SENTENCE
    printf 'quant-verify: %s\n' "$(harmless "$1")" >&2
}

error() { # SENTENCE: in a workflow as an annotation
    if in_workflow; then
        printf '::error title=quant-verify::%s\n' "$(encoded "$(harmless "$1")")"
    else
        say "$1"
    fi
}

fail() { # CODE SENTENCE: nothing was run, for this reason
    error "$2"
    finish "$1"
}

group() { # TITLE
    if in_workflow; then printf '::group::%s\n' "$(encoded "$(harmless "$1")")"; fi
}

end_group() {
    if in_workflow; then echo '::endgroup::'; fi
}

mask_tokens() { # the runner knows the secrets of the workflow, but not those of the machine
    local name part
    in_workflow || return 0
    for name in HF_TOKEN HUGGING_FACE_HUB_TOKEN; do
        while IFS= read -r part; do
            [[ -z $part ]] || printf '::add-mask::%s\n' "$(encoded "$part")"
        done <<<"${!name:-}"
    done
}

output() { # NAME: what the tool gave for it
    local key value
    [[ -f $QUANT_VERIFY_OUTPUTS ]] || return 0
    while IFS='=' read -r key value; do
        if [[ $key == "$1" ]]; then
            printf '%s' "$value"
            return
        fi
    done <"$QUANT_VERIFY_OUTPUTS"
}

outputs() { # CODE: the lines for GITHUB_OUTPUT; of what the tool wrote, only names that action.yml knows
    local name value verdict
    case $1 in
        0) verdict=passed ;;
        1) verdict=failed ;;
        2) verdict=usage-error ;;
        3) verdict=unverified ;;
        4) verdict=nothing-checked ;;
        *) verdict=interrupted ;;
    esac
    printf '%s=%s\n' verdict "$verdict" exit-code "$1"
    for name in cells passed failed warned errored skipped junit json summary html plan; do
        value=$(output "$name")
        [[ -z $value ]] || printf '%s=%s\n' "$name" "${value//[[:cntrl:]]/}"
    done
}

append_summary() {
    local bytes
    [[ -n $real_summary && -s $work/summary.md ]] || return 0
    bytes=$(($(wc -c <"$work/summary.md") + $(wc -c 2>/dev/null <"$real_summary" || echo 0)))
    if ((bytes > MAX_SUMMARY)); then
        say "the step summary is longer than a workflow can show; it stands in summary.md of the reports"
    else
        cat "$work/summary.md" >>"$real_summary"
    fi
}

finish() { # CODE: hand everything to the workflow, and end
    local code=$1
    trap '' INT TERM HUP
    trap - EXIT
    if ! append_summary; then
        say "the step summary could not be written"
        [[ $code != [04] ]] || code=3
    fi
    if [[ -n $real_output ]] && ! outputs "$code" >>"$real_output"; then
        say "the outputs of the step could not be written"
        [[ $code != [04] ]] || code=3
    fi
    rm -rf -- "$work" ${own_temp:+"$own_temp"} || true
    exit "$code"
}

unexpected() { # the launcher broke off; its exit code must not read as a verdict
    trap - EXIT
    error "the Action broke off; please report it, with the log of this step"
    [[ -z ${work:-} ]] || finish 3
    exit 3
}
