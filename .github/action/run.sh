#!/usr/bin/env bash
# Runs quant-verify for action.yml: chooses where it runs, passes signals on, hands what it found to the workflow.
#
# Every input comes as a variable QUANT_VERIFY_<INPUT>; empty is unset. The process that opens models sees neither the
# token of the workflow nor the files through which a step gives orders to the runner.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
unset CDPATH

parts=$(dirname "${BASH_SOURCE[0]}")
root=$(cd "$parts/../.." && pwd) # of this repository, where the sources are
# shellcheck source=workflow.sh
. "$parts/workflow.sh"
# shellcheck source=child.sh
. "$parts/child.sh"
# shellcheck source=inputs.sh
. "$parts/inputs.sh"
# shellcheck source=gpus.sh
. "$parts/gpus.sh"
# shellcheck source=python.sh
. "$parts/python.sh"
# shellcheck source=docker.sh
. "$parts/docker.sh"

tool=() # the words that come before "action" and "comment"

prepare() { # the tool, where the inputs want it to run
    choose_runtime
    case $runtime in
        docker) prepare_docker ;;
        python)
            limit_gpus
            prepare_python
            ;;
        path)
            limit_gpus
            command -v quant-verify >/dev/null ||
                fail 3 "runtime path: there is no quant-verify on PATH; install it in a step before this one (pip install 'quant-verify[torch]'), or choose another runtime"
            tool=(quant-verify)
            ;;
    esac
}

run_tool() { # WORD: the tool's command of that name
    if [[ $runtime == docker ]]; then
        docker_line "$1"
        run_child "${line[@]}"
    else
        run_child "${tool[@]}" "$1"
    fi
}

ended() { # CODE: the exit code of the run, which is 3 where the tool came to no verdict of its own
    case $1 in
        0 | 1 | 2 | 3 | 4 | 129 | 130 | 143) ended_with=$1 ;;
        *)
            ended_with=3
            echo # its last line may be no whole one
            error "$(why_ended "$1")"
            return
            ;;
    esac
    if [[ $1 == [014] && ! -e $QUANT_VERIFY_OUTPUTS ]]; then
        ended_with=3
        echo
        error "what ran in place of quant-verify ended with $1 and checked nothing; see the inputs runtime and image"
    fi
}

why_ended() { # CODE: one sentence
    local more=
    if [[ $runtime == docker ]]; then
        case $1 in
            125)
                [[ -z ${gpu_words[*]-} ]] || more="; without the NVIDIA container toolkit on this runner, set gpus: none"
                echo "docker could not start the container, its message stands above$more"
                return
                ;;
            126 | 127)
                echo "there is no quant-verify in the image $image; see the input image"
                return
                ;;
        esac
    fi
    case $1 in
        137) echo "quant-verify was killed (signal 9), most likely for want of memory; take a larger runner, or see the input shard" ;;
        *) echo "quant-verify ended with exit code $1, which is none of its own; please report it" ;;
    esac
}

comment() { # post the report to the pull request; whatever becomes of it, the verdict stands
    [[ ${QUANT_VERIFY_COMMENT:-never} != never && $ended_with == [0134] ]] || return 0
    local json
    json=$(output json)
    [[ -n $json && -z ${QUANT_VERIFY_SHARD:-} ]] || return 0
    [[ $json == /* ]] || json=$workspace/$json
    export QUANT_VERIFY_REPORT_DIR=${json%/*} GITHUB_TOKEN=$token
    unset HF_TOKEN HUGGING_FACE_HUB_TOKEN GITHUB_STEP_SUMMARY
    run_tool comment
    unset GITHUB_TOKEN
    [[ $status == 0 ]] || say "the comment was not posted; the verdict does not depend on it"
}

main() {
    begin
    listen
    mask_tokens
    check_inputs
    enter_folder
    forget_reports
    use_caches
    prepare
    stop_if_interrupted
    run_tool action
    ended "$status"
    comment
    finish "$ended_with"
}

main
